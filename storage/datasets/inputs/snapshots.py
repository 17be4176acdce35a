"""A snapshot: the files that a batch in place reads, each with the version that was listed.

JSON lines: a header, and then one line a file. It is the batch's input file, so a user can download
what was read, and a retry reads the same.
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec

from storage.datasets.inputs.places import InputFile
from storage.errors import DamagedData
from storage.objects import ObjectWriter

VERSION = 1


class _Header(msgspec.Struct, frozen=True):
    tidemill_snapshot: int
    input_uri: list[str]
    files: int
    bytes: int


def write_snapshot(writer: ObjectWriter, uris: Sequence[str], files: Sequence[InputFile]) -> None:
    """Write the snapshot of some files."""
    encode = msgspec.json.Encoder().encode
    total = sum(file.size for file in files)
    writer.write(encode(_Header(VERSION, list(uris), len(files), total)) + b"\n")
    for file in files:
        writer.write(encode(file) + b"\n")


def read_snapshot(stream: BinaryIO) -> Iterator[InputFile]:
    """The files of a snapshot, one after the other; `DamagedData` where it is none."""
    try:
        header = msgspec.json.decode(stream.readline(), type=_Header)
        decoder = msgspec.json.Decoder(InputFile)
        count = 0
        for line in stream:
            count += 1
            yield decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise DamagedData("The snapshot of the input is damaged.") from error
    if count != header.files:
        raise DamagedData("The snapshot of the input is cut off.")
