"""Which kind of input a file is: what the user says, else its content, and its name for tables."""

from collections.abc import Collection
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from storage.datasets.readers.delimited import (
    NOT_UTF8,
    column_names,
    delimiter_of,
    header_fields,
    prompt_column,
    read_delimited_rows,
    read_header,
)
from storage.datasets.readers.sample import SAMPLE_LINES, Sample, means_json
from storage.datasets.readers.telling import first_telling, why_nothing_tells
from storage.datasets.readers.text import is_utf8
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.values.files import DataFile, LocalFile, plain_name
from storage.datasets.values.requests import endpoint_of, is_request
from storage.datasets.values.rows import PROMPT_FIELDS
from storage.datasets.values.sources import ENCRYPTED, EXPECTED, Kind, Limits, Source, shown
from storage.errors import InputNotUnderstood
from storage.streams.encodings import unmarked_utf16
from storage.streams.json_faults import utf8_fault
from storage.streams.jsonl import without_mark

SAMPLE_BYTES = 1024 * 1024
PARQUET_MAGIC = b"PAR1"
_ENCRYPTED_MAGIC = b"PARE"  # of a Parquet file whose footer is encrypted
_MAGICS = (PARQUET_MAGIC, _ENCRYPTED_MAGIC)
_KINDS = {
    **{".parquet": Kind.PARQUET, ".parq": Kind.PARQUET, ".pq": Kind.PARQUET},
    **{".jsonl": Kind.JSONL, ".ndjson": Kind.JSONL, ".json": Kind.JSONL},
    **{".csv": Kind.CSV, ".tsv": Kind.TSV, ".tab": Kind.TSV, ".txt": Kind.TEXT},
}


def open_source(
    path: Path | DataFile,
    *,
    name: str | None = None,
    column: str | None = None,
    kind: Kind | None = None,
    limits: Limits = Limits(),
    written_again: bool = True,
) -> Source:
    """Look at a file and tell what it is; `Source.reason` says why.

    Args:
        name: its name where the path is only a copy of it, or is none.
        column: the field or column with the prompts, for plain inputs.
        kind: what it is, where the user says so.
        written_again: whether its columns are to be written beside the results.

    Raises:
        InputNotUnderstood: it cannot be read, is none of the kinds, or is larger than the limits.
    """
    file = LocalFile(path) if isinstance(path, Path) else path
    name = name or (shown(path.name) if isinstance(path, Path) else "The input")
    head, magic = _looked_at(file, name, limits, kind)
    source = Source(file, name, kind or Kind.TEXT, column, limits=limits, asked=kind is not None)
    if kind is Kind.PARQUET or (kind is None and magic in _MAGICS):
        return _parquet(source, magic, written_again=written_again)
    _check_no_binary(name, head)
    sample = Sample.of(name, head)
    if kind is Kind.TEXT:
        return _text(source, sample)
    if kind is not None and kind.delimited:
        return _delimited(source, head, kind)
    if kind is None and (table := _table_by_name(name)) and not sample.begins_with_json:
        return _delimited(source, head, table, "by its name")
    if kind is not None or means_json(sample):
        return _json(source, sample)
    delimiter = delimiter_of(Kind.CSV, head, source)
    if _is_header(column_names(header_fields(head, delimiter, source)), column):
        tabs = delimiter == "\t"
        return _delimited(source, head, Kind.TSV if tabs else Kind.CSV, "by its header")
    return _text(source, sample)


def open_table(
    file: DataFile, name: str, columns: Collection[str], *, kind: Kind | None, limits: Limits
) -> Source:
    """Look at a file of which a template takes these columns, whatever the prompts are.

    Args:
        kind: what it is, where that is known.

    Raises:
        InputNotUnderstood: it cannot be read, is empty, or is no table.
    """
    kind = kind or kind_named(name)
    head, magic = _looked_at(file, name, limits, kind)
    source = Source(file, name, kind or Kind.TEXT, limits=limits, asked=kind is not None)
    if kind is Kind.PARQUET or (kind is None and magic in _MAGICS):
        _check_parquet(name, magic)
        return replace(source, kind=Kind.PARQUET)
    _check_no_binary(name, head)
    sample = Sample.of(name, head)
    if kind is None:
        kind = Kind.JSONL if sample.begins_with_json else Kind.CSV
    one_document = sample.is_document or (isinstance(sample.first, list) and not sample.objects)
    if kind is Kind.JSONL and one_document:
        raise InputNotUnderstood(why_nothing_tells(source, sample))
    if not kind.delimited:
        return replace(source, kind=kind)
    delimiter = delimiter_of(kind, head, source, columns)
    return replace(source, kind=kind, delimiter=delimiter)


def kind_named(name: str) -> Kind | None:
    """The kind that a file's name stands for, if it is one of a table or of text."""
    return _KINDS.get(Path(plain_name(name.lower())).suffix)


def is_table(head: bytes, name: str) -> bool:
    """Whether a file is a table: Parquet by its first bytes, or CSV by its name or its header.

    A file that begins as lines of JSON is none, whatever it is called.
    """
    if head.startswith(_MAGICS):
        return True
    text = without_mark(head).lstrip()
    if text[:1] in (b"", b"{", b"[") or b"\0" in head:
        return False
    if _table_by_name(name):
        return True
    source = Source(LocalFile(Path()), "", Kind.CSV)
    names = header_fields(text, delimiter_of(Kind.CSV, text, source), source)
    return _is_header(column_names(names), None)


def _looked_at(file: DataFile, name: str, limits: Limits, kind: Kind | None) -> tuple[bytes, bytes]:
    """The first lines of a file, whole and unpacked, and the bytes that it begins with itself."""
    try:
        with file.open() as raw:
            magic = raw.read(len(PARQUET_MAGIC))
        if kind is Kind.PARQUET or (kind is None and magic in _MAGICS):
            return b"", magic
        with open_unpacked(file, name, limits) as stream:
            return _head(stream, limits), magic
    except OSError as error:
        raise InputNotUnderstood(f"{name} cannot be read: {error.strerror}.") from error


def _head(stream: BinaryIO, limits: Limits) -> bytes:
    """The first lines, whole."""
    head = stream.read(SAMPLE_BYTES)
    if b"\n" not in head:
        return head + stream.readline(limits.max_line_bytes)
    return head[: head.rindex(b"\n")] if len(head) == SAMPLE_BYTES else head


def _check_no_binary(name: str, head: bytes) -> None:
    if b"\0" not in head:
        return
    if encoding := unmarked_utf16(head):
        raise InputNotUnderstood(
            f"{name} looks like {encoding} without a byte-order mark; "
            f"iconv -f {encoding} -t UTF-8 makes it readable."
        )
    raise InputNotUnderstood(f"{name} is a binary file. {EXPECTED}")


def _why(source: Source, told: str) -> str:
    return "by --input-format" if source.asked else told


def _check_parquet(name: str, magic: bytes) -> None:
    if magic == _ENCRYPTED_MAGIC:
        raise InputNotUnderstood(ENCRYPTED.format(name))
    if magic != PARQUET_MAGIC:
        raise InputNotUnderstood(f"{name} is no Parquet file. {EXPECTED}")


def _parquet(source: Source, magic: bytes, *, written_again: bool) -> Source:
    from storage.datasets.readers import parquet

    _check_parquet(source.name, magic)
    column = parquet.prompt_column(
        source.file, source.column, source.limits, source.name, written_again=written_again
    )
    reason = f"{_why(source, 'by its content')}, column {column}"
    return replace(source, kind=Kind.PARQUET, column=column, reason=reason)


def _text(source: Source, sample: Sample) -> Source:
    """A text; a few lines that are not UTF-8 only fail their own rows."""
    if source.column:
        raise InputNotUnderstood(
            f"{source.name} is plain text, which has no column {source.column!r}."
        )
    _check_utf8(sample)
    reason = _why(source, "its first line is no JSON object")
    return replace(source, kind=Kind.TEXT, reason=reason)


def _check_utf8(sample: Sample) -> None:
    bad = [(number, line) for number, line in sample.lines if not is_utf8(line)]
    if len(bad) * 2 < len(sample.lines):
        return
    number, line = bad[0]
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise InputNotUnderstood(
            f"{sample.name}, line {number} is not UTF-8: it has {utf8_fault(line, error)}: "
            f"{Sample.shown(line)}\nFor text of older Windows programs: "
            f"iconv -f WINDOWS-1252 -t UTF-8\n{EXPECTED}"
        ) from error


def _table_by_name(name: str) -> Kind | None:
    kind = kind_named(name)
    return kind if kind is not None and kind.delimited else None


def _is_header(names: list[str], column: str | None) -> bool:
    """Whether one of the names is that of the prompts' column, beside others if nobody asked for
    it."""
    if column:
        return column in names
    return len(names) > 1 and any(name in names for name in PROMPT_FIELDS)


def _delimited(source: Source, head: bytes, kind: Kind, told: str = "") -> Source:
    source = replace(source, kind=kind, delimiter=delimiter_of(kind, head, source))
    with open_unpacked(source.file, source.name, source.limits) as stream:
        column = prompt_column(source, read_header(stream, source))
    _check_table(source)
    return replace(source, column=column, reason=f"{_why(source, told)}, column {column}")


def _check_table(source: Source) -> None:
    """Refuse a table whose first prompts are mostly not UTF-8; a few only fail their own rows."""
    with open_unpacked(source.file, source.name, source.limits) as stream:
        rows = list(islice(read_delimited_rows(stream, source), SAMPLE_LINES))
    bad = [row for row in rows if row.problem and row.problem.endswith(NOT_UTF8)]
    if bad and len(bad) * 2 >= len(rows):
        raise InputNotUnderstood(f"{source.name}, line {bad[0].number}: {bad[0].problem}")


def _json(source: Source, sample: Sample) -> Source:
    """Whole requests or rows, as the first line tells that is either."""
    if source.asked and source.kind is Kind.REQUESTS:
        if source.column:
            raise _no_column(source)
        return _requests(source, sample, "")
    found = None if sample.is_document and not source.asked else first_telling(source)
    if found is None:
        raise InputNotUnderstood(why_nothing_tells(source, sample))
    number, fields, kind = found
    if kind is Kind.REQUESTS:
        if source.column:
            raise _no_column(source)
        sample = replace(sample, objects=[fields, *sample.objects])
        return _requests(source, sample, f"line {number} has a custom_id and a body")
    name = source.column or next(name for name in PROMPT_FIELDS if name in fields)
    reason = _why(source, f"line {number} has a field {name}")
    return replace(source, kind=Kind.JSONL, reason=reason)


def _requests(source: Source, sample: Sample, told: str) -> Source:
    endpoint = endpoint_of(filter(is_request, sample.objects))
    return replace(source, kind=Kind.REQUESTS, endpoint=endpoint, reason=_why(source, told))


def _no_column(source: Source) -> InputNotUnderstood:
    return InputNotUnderstood(
        f"{source.name} holds whole requests, so --column has no meaning for it; for rows of data "
        "say --input-format jsonl."
    )
