"""Parquet in row groups of many rows, gathered from small batches in bounded memory."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.datasets.readers.arrow_types import is_list, own_bytes, plain_schema

GROUP_ROWS = 65_536
GROUP_BYTES = 64 * 1024**2
_WIDE_BITS = 32
# Schemas that other programs keep in a file's metadata. Spark and Avro's reader take them before
# the file's own, so that columns which they lack are not seen, or refused.
_FOREIGN_SCHEMAS = frozenset(
    {b"org.apache.spark.sql.parquet.row.metadata", b"parquet.avro.schema", b"avro.schema"}
)


class RowGroups:
    """Row groups of `GROUP_ROWS`, or of as many rows as are `GROUP_BYTES`, if that is less."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._batches: list[pa.RecordBatch] = []
        self._categories = _Categories()
        self._dictionaries: dict[int, pa.Array] = {}
        self._rows = self._bytes = 0

    def add(self, columns: Sequence[pa.Array]) -> None:
        """Take the next rows."""
        if not self._categories.take(columns):
            self.write()
            self._categories.take(columns)
        shared = [self._shared(at, column) for at, column in enumerate(columns)]
        batch = pa.RecordBatch.from_arrays(shared, schema=self._writer.schema)
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += sum(map(own_bytes, shared))
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is gathered, if anything is."""
        if self._rows:
            self._writer.write_table(pa.Table.from_batches(self._batches), self._rows)
        self._batches.clear()
        self._categories = _Categories()
        self._rows = self._bytes = 0

    def _shared(self, at: int, column: pa.Array) -> pa.Array:
        """A column with the categories of the one before it, where they are the same.

        Arrow reads them anew for every batch, which together are far more than the rows.
        """
        kind = column.type
        if not pa.types.is_dictionary(kind):
            return column
        known = self._dictionaries.get(at)
        if known is None or not known.equals(column.dictionary):
            self._dictionaries[at] = column.dictionary
            self._bytes += column.dictionary.nbytes
            return column
        return pa.DictionaryArray.from_arrays(column.indices, known, ordered=kind.ordered)


@contextmanager
def row_groups(destination: BinaryIO, schema: pa.Schema) -> Iterator[RowGroups]:
    """Row groups of columns of `plain_schema`, which readers find with the types of ``schema``."""
    metadata = schema.metadata or {}
    kept = {key: value for key, value in metadata.items() if key not in _FOREIGN_SCHEMAS}
    schema = schema.with_metadata(kept)
    with pq.ParquetWriter(destination, plain_schema(schema), store_schema=False) as writer:
        groups = RowGroups(writer)
        yield groups
        groups.write()
        # Where Arrow itself keeps a schema, which here is not that of the columns it was given.
        arrow_schema = b64encode(schema.serialize().to_pybytes())
        writer.add_key_value_metadata({**kept, b"ARROW:schema": arrow_schema})


class _Categories:
    """The categories of a row group, each column's as one dictionary.

    A row group has one dictionary a column. So rows whose categories have another order, or are too
    many for the column's indices together with those before them, go into another group.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], pa.Array] = {}

    def take(self, columns: Sequence[pa.Array]) -> bool:
        """Add the categories of the next rows, if they fit."""
        joint = {at: self._joint(at, column) for at, column in _categories(columns)}
        if None in joint.values():
            return False
        self._known.update(joint)
        return True

    def _joint(self, at: tuple[int, ...], column: pa.DictionaryArray) -> pa.Array | None:
        known, new = self._known.get(at), column.dictionary
        if known is None or known.equals(new):
            return new
        both = pc.unique(pa.concat_arrays([known, new]))
        kind = column.type
        signed = pa.types.is_signed_integer(kind.index_type)
        fits = len(both) <= 2 ** (kind.index_type.bit_width - signed)
        return both if fits and not kind.ordered else None


def _categories(
    columns: Sequence[pa.Array], inside: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], pa.DictionaryArray]]:
    """The columns of ordered or of narrow categories, in whatever they stand, with their places."""
    for index, column in enumerate(columns):
        kind, at = column.type, (*inside, index)
        if pa.types.is_dictionary(kind):
            if kind.ordered or kind.index_type.bit_width < _WIDE_BITS:
                yield at, column
        elif pa.types.is_struct(kind):
            yield from _categories(column.flatten(), at)
        elif pa.types.is_map(kind):
            yield from _categories([column.keys, column.items], at)
        elif is_list(kind):
            yield from _categories([column.values], at)
