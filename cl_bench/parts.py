"""One Parquet file of record rows: its columns, its checksum, its version.

A part holds the rows of one chunk of a group, segments [first, last) of the run. Any
Parquet reader opens it; `read_part` also proves it by the checksum file beside it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cl_bench.atomic import StoreError, replacing

SCHEMA_VERSION = 1
_VERSION = b"cl_bench.schema_version"
_FIRST = b"cl_bench.first_segment"
_LAST = b"cl_bench.last_segment"


class CorruptPartError(StoreError):
    """A part that is truncated or whose content does not match its checksum."""


class SchemaVersionError(StoreError):
    """Records of a layout that this version of cl_bench cannot read."""


class Part(NamedTuple):
    """The rows of segments [first_segment, last_segment) of a group."""

    first_segment: int
    last_segment: int
    table: pa.Table


def part_path(group_dir: Path, index: int) -> Path:
    """Where part `index` of a group lies."""
    return Path(group_dir) / f"part-{index:05d}.parquet"


def part_index(path: Path) -> int:
    """Which part a file named by `part_path` or `checksum_path` belongs to."""
    return int(path.stem.removeprefix("part-"))


def part_paths(group_dir: Path) -> list[Path]:
    """All parts of a group, in order."""
    return sorted(Path(group_dir).glob("part-[0-9]*.parquet"), key=part_index)


def make_table(rows: Mapping[str, Any] | pa.Table) -> pa.Table:
    """Columns (numpy or jax [N], masked arrays, lists, arrow arrays) as one table.

    Strings are stored plain; NaN stays NaN; None and masked entries become null.
    Raises StoreError for a type that records do not hold or unequal lengths.
    """
    named = (
        rows
        if isinstance(rows, Mapping)
        else dict(zip(rows.column_names, rows.columns, strict=True))
    )
    try:
        return pa.table({name: _column(values) for name, values in named.items()})
    except (pa.ArrowException, TypeError) as error:
        raise StoreError(f"These rows cannot be recorded: {error}") from error


def _column(values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    array = values if isinstance(values, pa.Array) else _from_host(values)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):  # not measured in this chunk
        array = array.cast(pa.float64())
    if pa.types.is_large_string(array.type):
        array = array.cast(pa.string())
    kinds = (pa.types.is_string, pa.types.is_integer, pa.types.is_boolean)
    if not any(kind(array.type) for kind in (*kinds, pa.types.is_floating)):
        raise TypeError(f"a column of {array.type} is not text, number or boolean.")
    return array


def _from_host(values: Any) -> pa.Array:
    if isinstance(values, (list, tuple)):
        return pa.array(values)
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else None
    host = np.ma.getdata(values) if mask is not None else np.asarray(values)
    if host.dtype.kind in "OU":  # element by element, so that None becomes null
        return pa.array(host.tolist(), mask=mask)
    if host.dtype.kind == "V" or host.dtype == np.float16:  # bfloat16 and the like
        host = host.astype(np.float32)
    return pa.array(host, mask=mask)


def checksum_path(path: Path) -> Path:
    """The file beside a part that `sha256sum --check` also reads."""
    return path.with_suffix(".sha256")


def _checksum_line(path: Path, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode()


def write_part(
    group_dir: Path,
    index: int,
    rows: Mapping[str, Any] | pa.Table,
    first_segment: int,
    last_segment: int,
) -> Path:
    """Writes the rows of segments [first_segment, last_segment) as part `index`.

    Raises StoreError (disk full); the parts before this one stay intact.
    """
    interval = {_FIRST: str(first_segment), _LAST: str(last_segment)}
    metadata = version_metadata() | interval
    sink = pa.BufferOutputStream()
    table = make_table(rows).replace_schema_metadata(metadata)
    pq.write_table(table, sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    path = part_path(group_dir, index)
    intact = f"The {index} earlier parts of this group are intact."
    # The checksum goes first: a kill in between leaves no part, not an unproved one.
    with replacing(checksum_path(path), intact) as file:
        file.write(_checksum_line(path, content))
    with replacing(path, intact) as file:
        file.write(content)
    return path


def check_version(metadata: Mapping[bytes, bytes] | None, path: Path) -> None:
    """Raises SchemaVersionError for records that another layout wrote."""
    version = (metadata or {}).get(_VERSION, b"none").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        raise SchemaVersionError(
            f"{path} has record schema version {version}; this version of cl_bench "
            f"reads version {SCHEMA_VERSION}. Use the cl_bench that wrote it (see "
            "provenance.json), or another workdir."
        )


def version_metadata() -> dict[bytes, bytes]:
    """What marks a file as records of the present layout."""
    return {_VERSION: str(SCHEMA_VERSION).encode()}


def read_part(path: Path) -> Part:
    """The rows of one part, proved undamaged. CorruptPartError, SchemaVersionError."""
    try:
        content = path.read_bytes()
        checksum = checksum_path(path).read_bytes()
    except OSError as error:
        raise CorruptPartError(f"{path} cannot be checked ({error}).") from error
    if checksum != _checksum_line(path, content):
        raise CorruptPartError(f"{path} is damaged: its checksum does not match.")
    # From memory, in this thread: an Arrow thread that still holds a Python buffer when
    # the interpreter ends aborts the process (apache/arrow#34314).
    with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
        table = file.read(use_threads=False)
    metadata = table.schema.metadata
    check_version(metadata, path)
    first, last = int(metadata[_FIRST]), int(metadata[_LAST])
    return Part(first, last, table.replace_schema_metadata(None))
