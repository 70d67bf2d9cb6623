"""All records of a study as one table: parts joined, compacted, read back.

Groups may record different metrics: a column that a group lacks is null there.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cl_bench.atomic import StoreError, replacing
from cl_bench.parts import (
    check_version,
    part_paths,
    read_part,
    version_metadata,
)

_log = logging.getLogger(__name__)
_PARTS = b"cl_bench.parts"
# What pyarrow raises on damaged bytes depends on where the damage is.
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError)
_ROW_GROUP = 65_536  # rows; one row group a part would drown a reader in footers


def _all_parts(workdir: Path) -> list[Path]:
    groups = sorted(p for p in (workdir / "groups").glob("*") if p.is_dir())
    return [path for group in groups for path in part_paths(group)]


def _parts_digest(workdir: Path, parts: list[Path]) -> bytes:
    names = [[p.relative_to(workdir).as_posix(), p.stat().st_size] for p in parts]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest().encode()


def _unified_schema(parts: list[Path]) -> pa.Schema:
    """The columns of all parts; one that a group lacks is null there."""
    schema = pa.schema([])
    for path in parts:
        found = read_part(path).table.schema
        if not set(found) <= set(schema):  # most parts bring nothing new
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
    return schema


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    def column(field: pa.Field) -> pa.ChunkedArray | pa.Array:
        if field.name in table.column_names:
            return table[field.name].cast(field.type)
        return pa.nulls(table.num_rows, field.type)

    return pa.table([column(field) for field in schema], schema=schema)


def _in_blocks(parts: list[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The parts' rows in order, in tables of about `_ROW_GROUP` rows."""
    pending: list[pa.Table] = []
    rows = 0
    for path in parts:
        pending.append(_conform(read_part(path).table, schema))
        rows += pending[-1].num_rows
        if rows >= _ROW_GROUP:
            yield pa.concat_tables(pending)
            pending, rows = [], 0
    if pending:
        yield pa.concat_tables(pending)


def compact(workdir: str | Path) -> Path:
    """Writes DIR/records.parquet from all parts, a block at a time; the parts stay.

    Raises StoreError where there is no part, one is damaged, or the disk is full.
    """
    folder = Path(workdir)
    parts = _all_parts(folder)
    if not parts:
        raise StoreError(f"{folder} has no records: no group has finished a chunk.")
    schema = _unified_schema(parts)
    metadata = version_metadata() | {_PARTS: _parts_digest(folder, parts)}
    target = folder / "records.parquet"
    with (
        replacing(target, "All parts are intact.") as file,
        pq.ParquetWriter(
            file,
            schema.with_metadata(metadata),
            compression="zstd",
            write_page_checksum=True,
        ) as writer,
    ):
        for table in _in_blocks(parts, schema):
            writer.write_table(table.replace_schema_metadata(metadata))
    return target


def read_records(workdir: str | Path) -> pa.Table:
    """All rows of a study: from records.parquet where that is current, else the parts.

    Raises StoreError where there are none, CorruptPartError where a part is damaged,
    SchemaVersionError where another layout wrote them.
    """
    folder = Path(workdir)
    parts = _all_parts(folder)
    table = _read_compacted(folder, parts)
    if table is not None:
        return table
    if not parts:
        raise StoreError(f"{folder} has no records: no group has finished a chunk.")
    schema = _unified_schema(parts)
    return pa.concat_tables(_in_blocks(parts, schema))


def is_current(workdir: str | Path) -> bool:
    """Whether records.parquet is there, sound, and holds what the parts hold."""
    folder = Path(workdir)
    return _read_compacted(folder, _all_parts(folder)) is not None


def _read_compacted(folder: Path, parts: list[Path]) -> pa.Table | None:
    path = folder / "records.parquet"
    if not path.exists():
        return None
    try:
        with pq.ParquetFile(
            path, page_checksum_verification=True, pre_buffer=False
        ) as file:
            metadata = file.schema_arrow.metadata or {}
            check_version(metadata, path)
            current = metadata.get(_PARTS) == _parts_digest(folder, parts)
            newest = max((p.stat().st_mtime_ns for p in parts), default=0)
            if parts and not (current and path.stat().st_mtime_ns >= newest):
                return None
            return file.read().replace_schema_metadata(None)
    except _DAMAGE as error:
        if not parts:
            raise StoreError(f"{path} is damaged ({error}).") from error
        _log.warning("%s is damaged (%s): the parts are read instead.", path, error)
        return None
