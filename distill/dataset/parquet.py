"""The only door to pyarrow: columns of NumPy arrays to and from Parquet files.

A column is an array (T,) or (T, n), or a list of texts or of lists. (T, n) becomes a list of fixed size, as LeRobot
stores vectors; (T,) becomes a plain column. Pages carry checksums, so that damage inside a file shows as well. Knows
nothing of datasets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import UserError

Column = np.ndarray | list
"""(T,) or (T, n) numbers, or T texts, or T lists of texts or numbers."""

NOTE = b"eureka"
"""Key of our own note in a file's metadata."""
INDEX_COLUMN = "__index_level_0__"
"""What pandas calls an index without a name."""
_OPTIONS: dict[str, Any] = {"compression": "snappy", "write_page_checksum": True}


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("datasets need pyarrow, which is not installed: pip install 'eureka-skills[distill]'") from None
    return pyarrow, pyarrow.parquet


def encode(columns: Mapping[str, Column], note: Mapping[str, Any] | None = None) -> bytes:
    """Columns of equal length as a Parquet file with one row group; `note` is kept in its metadata as JSON."""
    pa, pq = _arrow()
    table = pa.table({name: _to_arrow(pa, column) for name, column in columns.items()})
    if note is not None:
        table = table.replace_schema_metadata({NOTE: json.dumps(note).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=max(1, len(table)), **_OPTIONS)
    return sink.getvalue().to_pybytes()


def join(paths: Sequence[Path]) -> bytes:
    """Files of the same columns as one, a row group each; their notes are left behind."""
    pa, pq = _arrow()
    sink, writer = pa.BufferOutputStream(), None
    for path in paths:
        with _opened(path) as file:
            table = file.read(use_threads=False).replace_schema_metadata(None)
        writer = writer or pq.ParquetWriter(sink, table.schema, **_OPTIONS)
        writer.write_table(table, row_group_size=max(1, len(table)))
    if writer is None:
        raise ValueError("nothing to join")
    writer.close()
    return sink.getvalue().to_pybytes()


def read(path: Path, names: Sequence[str] | None = None, start: int = 0, stop: int | None = None) -> dict[str, Any]:
    """Columns of rows [start, stop) of a file: arrays, or lists where they hold texts.

    Args:
        path: The file.
        names: Columns to read; None: all.
        start: First row.
        stop: The row after the last one; None: to the end.

    Raises:
        UserError: the file is missing, damaged or no Parquet, or lacks a column, or a column has holes.
    """
    with _opened(path) as file:
        present = file.schema_arrow.names
        missing = [name for name in names or () if name not in present]
        if missing:
            raise UserError(f"{path}: has no column '{missing[0]}'; it has {', '.join(present[:12])}.")
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes, dtype=np.int64)
        stop = int(ends[-1]) if stop is None and len(ends) else stop or 0
        groups = [g for g, end in enumerate(ends) if end > start and end - sizes[g] < stop]
        before = int(ends[groups[0]]) - sizes[groups[0]] if groups else 0
        table = file.read_row_groups(groups, columns=None if names is None else list(names), use_threads=False)
        table = table.slice(start - before, stop - start)
        return {name: _from_arrow(table.column(name), f"{path}: column '{name}'") for name in table.column_names}


def columns_of(path: Path) -> tuple[str, ...]:
    """Names of a file's columns. Raises UserError if it is missing or damaged."""
    with _opened(path) as file:
        return tuple(file.schema_arrow.names)


def read_note(path: Path) -> Any:
    """The note that `encode` kept. Raises UserError if the file is damaged or has none."""
    with _opened(path) as file:
        metadata = file.schema_arrow.metadata or {}
    if NOTE not in metadata:
        raise UserError(f"{path}: was not written by eureka-skills; it does not belong here.")
    return json.loads(metadata[NOTE])


def encode_names(names: Sequence[str], column: str) -> bytes:
    """Texts and their numbers 0, 1, ... as pandas writes a frame whose index is the texts: LeRobot's tasks.parquet."""
    pa, pq = _arrow()
    number = {"name": column, "field_name": column, "pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    text = {"name": None, "field_name": INDEX_COLUMN, "pandas_type": "unicode", "numpy_type": "object"}
    header = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": [INDEX_COLUMN],
        "column_indexes": [header | {"metadata": {"encoding": "UTF-8"}}],
        "columns": [number, text | {"metadata": None}],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    table = pa.table({column: np.arange(len(names)), INDEX_COLUMN: pa.array(list(names), pa.string())})
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({b"pandas": json.dumps(pandas).encode()}), sink, **_OPTIONS)
    return sink.getvalue().to_pybytes()


def read_names(path: Path, column: str) -> tuple[str, ...]:
    """The texts of `encode_names`, or of pandas, by their number. Raises UserError if numbers or texts are amiss."""
    data = read(path)
    numbers = data.pop(column, None)
    texts = [values for values in data.values() if isinstance(values, list)]
    if numbers is None or not texts or sorted(numbers) != list(range(len(numbers))):
        raise UserError(f"{path}: expected one text for each '{column}' from 0 on.")
    return tuple(text for _, text in sorted(zip(map(int, numbers), texts[-1], strict=True)))


class _opened:
    """A Parquet file; what pyarrow says of a bad one becomes one line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pa, self._pq = _arrow()

    def __enter__(self) -> Any:
        try:
            self._file = self._pq.ParquetFile(self._path, page_checksum_verification=True)
        except (OSError, self._pa.ArrowException) as error:
            raise self._complaint(error) from None
        return self._file

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        self._file.close()
        if isinstance(error, OSError | self._pa.ArrowException):
            raise self._complaint(error) from None

    def _complaint(self, error: BaseException) -> UserError:
        if isinstance(error, FileNotFoundError):
            return UserError(f"{self._path}: no such file; the dataset is not complete, copy it again.")
        reason = " ".join(str(error).split())[:120]
        return UserError(f"{self._path}: damaged, or no Parquet file ({reason}); copy it again from where it is whole.")


def _to_arrow(pa: Any, column: Column) -> Any:
    if isinstance(column, np.ndarray) and column.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(column).reshape(-1)), column.shape[1])
    return pa.array(column)


def _from_arrow(column: Any, where: str) -> Any:
    pa, _ = _arrow()
    kind, types = column.type, pa.types
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
    if array.null_count:
        raise UserError(f"{where} has {array.null_count} rows without a value.")
    if types.is_string(kind) or types.is_large_string(kind):
        return array.to_pylist()
    if not (types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)):
        return array.to_numpy(zero_copy_only=False)
    values = array.flatten()
    if types.is_string(values.type) or types.is_nested(values.type):
        return array.to_pylist()
    widths = {kind.list_size} if types.is_fixed_size_list(kind) else set(array.value_lengths().to_pylist())
    if values.null_count or len(widths) > 1:
        raise UserError(f"{where}: rows of different lengths, or without a number; expected vectors of one size.")
    return values.to_numpy(zero_copy_only=False).reshape(len(array), widths.pop() if widths else 0)
