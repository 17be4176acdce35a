"""How long the outputs of a sample were: its output file, read line by line."""

import msgspec

from storage.database.tables import Job
from storage.errors import ObjectNotFound
from storage.objects import ObjectStore
from storage.streams.jsonl import read_lines

MOST_ROWS = 10_000
_LINE_BYTES = 64 * 1024 * 1024


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Body(msgspec.Struct):
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _Response(msgspec.Struct):
    body: _Body


class _Line(msgspec.Struct):
    response: _Response


_decoder = msgspec.json.Decoder(_Line)


def output_lengths(store: ObjectStore, sample: Job) -> list[int]:
    """Output tokens of each row that was answered; empty where its output is gone.

    Raises:
        StorageError: the store failed.
    """
    if sample.out_key is None:
        return []
    lengths: list[int] = []
    try:
        with store.reader(sample.out_key) as stream:
            for line in read_lines(stream, max_line_bytes=_LINE_BYTES):
                lengths.append(_decoder.decode(line.data).response.body.usage.completion_tokens)
                if len(lengths) == MOST_ROWS:
                    break
    except (ObjectNotFound, msgspec.DecodeError):
        return []
    return lengths
