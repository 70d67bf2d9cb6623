"""Groups with different metrics become one table, compacted or not."""

import math
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from cl_bench import parts, records, store
from cl_bench.atomic import StoreError


@pytest.fixture
def study(tmp_path):
    a, b = (store.group_dir(tmp_path, name) for name in ("a", "b"))
    parts.write_part(a, 0, {"run_id": ["r0"], "dead_units": [0.5]}, 0, 1)
    parts.write_part(a, 1, {"run_id": ["r0"], "dead_units": [math.nan]}, 1, 2)
    rank = np.ones(1, np.float32)
    parts.write_part(b, 0, {"run_id": ["r1"], "effective_rank": rank}, 0, 1)
    return tmp_path


def _check(table):
    assert table.column_names == ["run_id", "dead_units", "effective_rank"]
    assert table["run_id"].to_pylist() == ["r0", "r0", "r1"]
    dead = table["dead_units"].to_pylist()
    assert dead[0] == 0.5 and math.isnan(dead[1]) and dead[2] is None
    assert table["effective_rank"].to_pylist() == [None, None, 1.0]
    assert table.schema.metadata is None


def test_parts_and_compacted_file_hold_the_same_rows(study):
    _check(records.read_records(study))
    path = records.compact(study)
    _check(records.read_records(study))
    assert pq.read_table(path).num_rows == 3  # any Parquet reader opens it


def test_compacting_twice_gives_the_same_bytes(study):
    first = records.compact(study).read_bytes()
    assert records.compact(study).read_bytes() == first


def test_compacted_file_alone_is_enough(study):
    records.compact(study)
    for path in study.rglob("part-*"):
        path.unlink()
    _check(records.read_records(study))


def test_stale_compacted_file_is_not_used(study):
    path = records.compact(study)
    row = {"run_id": ["r0"], "dead_units": [0.75]}
    parts.write_part(study / "groups" / "a", 2, row, 2, 3)
    assert records.read_records(study).num_rows == 4
    records.compact(study)
    os.utime(path, ns=(0, 0))  # older than its parts: they may have changed since
    parts.write_part(study / "groups" / "a", 2, row | {"dead_units": [0.8]}, 2, 3)
    assert records.read_records(study)["dead_units"].to_pylist()[2] == 0.8


def test_compacted_file_of_parts_that_are_gone_is_not_used(study):
    records.compact(study)
    parts.part_path(study / "groups" / "a", 1).unlink()  # to be done again
    assert records.read_records(study)["run_id"].to_pylist() == ["r0", "r1"]


@pytest.mark.parametrize("kept", [0, 10, -100, -1])
def test_truncated_compacted_file_falls_back_to_the_parts(study, caplog, kept):
    path = records.compact(study)
    path.write_bytes(path.read_bytes()[:kept])
    _check(records.read_records(study))
    assert "records.parquet is damaged" in caplog.text
    for part in study.rglob("part-*"):
        part.unlink()
    with pytest.raises(StoreError, match="damaged"):
        records.read_records(study)


def test_damaged_part_is_named(study):
    path = parts.part_path(study / "groups" / "a", 1)
    path.write_bytes(path.read_bytes()[:-20])
    for read in (records.read_records, records.compact):
        with pytest.raises(parts.CorruptPartError, match="part-00001"):
            read(study)
    assert not (study / "records.parquet").exists()


def test_no_records(tmp_path):
    for read in (records.read_records, records.compact):
        with pytest.raises(StoreError, match="has no records"):
            read(tmp_path)


def test_another_schema_version_is_refused(study, monkeypatch):
    monkeypatch.setattr(parts, "SCHEMA_VERSION", 2)
    with pytest.raises(parts.SchemaVersionError, match="version 1"):
        records.read_records(study)


def test_compacting_holds_one_block_at_a_time(study, monkeypatch):
    monkeypatch.setattr(records, "_ROW_GROUP", 2)
    with pq.ParquetFile(records.compact(study)) as file:
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        assert [group.num_rows for group in groups] == [2, 1]
    _check(records.read_records(study))
