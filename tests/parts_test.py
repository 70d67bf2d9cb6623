"""A part gives back exactly what was written, or says that it is damaged."""

import hashlib
import math

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cl_bench import parts
from cl_bench.atomic import StoreError

_ROWS = {
    "run_id": ["a", "b", "b"],
    "seed": np.arange(3),
    "task": np.zeros(3, np.int32),
    "online_accuracy": np.array([0.5, math.nan, math.inf]),
    "dead_units": [None, 0.25, None],
}
_quick = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _same(left: object, right: object) -> bool:
    return repr(left) == repr(right)  # nan is nan, -0.0 is not 0.0


@_quick
@given(
    st.lists(
        st.tuples(
            st.none() | st.text(st.characters(exclude_categories=["Cs"])),
            st.none() | st.floats(),
            st.integers(-(2**63), 2**63 - 1),
        ),
        max_size=8,
    )
)
def test_rows_come_back_exactly(tmp_path, rows):
    columns = {
        "arm": pa.array([r[0] for r in rows], pa.string()),
        "score": pa.array([r[1] for r in rows], pa.float64()),
        "seed": np.array([r[2] for r in rows], np.int64),
    }
    path = parts.write_part(tmp_path, 0, columns, 3, 5)
    part = parts.read_part(path)
    assert (part.first_segment, part.last_segment) == (3, 5)
    back = list(zip(*(part.table[n].to_pylist() for n in columns), strict=True))
    assert len(back) == len(rows)
    for row, again in zip(rows, back, strict=True):
        assert all(map(_same, row, again))


def test_column_types_and_nulls(tmp_path):
    rows = _ROWS | {
        "masked": np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False]),
        "never": [None, None, None],
        "bfloat16": jnp.ones(3, jnp.bfloat16),
        "float32": jnp.ones(3, jnp.float32),
        "words": np.array(["x", "yy", "z"]),
        "diverged": np.array([True, False, True]),
    }
    table = parts.read_part(parts.write_part(tmp_path, 0, rows, 0, 1)).table
    types = {field.name: str(field.type) for field in table.schema}
    assert types["run_id"] == types["words"] == "string"
    assert (types["seed"], types["task"]) == ("int64", "int32")
    assert (types["bfloat16"], types["float32"]) == ("float", "float")
    assert (types["never"], types["diverged"]) == ("double", "bool")
    assert table["masked"].to_pylist() == [1.0, None, 3.0]
    accuracy = table["online_accuracy"]
    assert accuracy.null_count == 0 and math.isnan(accuracy[1].as_py())
    assert table["dead_units"].to_pylist() == [None, 0.25, None]


def test_a_table_is_rows_too_and_equal_signs_in_a_path_add_no_column(tmp_path):
    folder = tmp_path / "arm=l2"
    folder.mkdir()
    table = parts.make_table(_ROWS)
    back = parts.read_part(parts.write_part(folder, 0, table, 0, 1)).table
    assert back.schema == table.schema


@pytest.mark.parametrize("bad", [{"a": [[1]]}, {"a": [1], "b": [1, 2]}, {"a": [b"x"]}])
def test_rows_that_cannot_be_recorded(tmp_path, bad):
    with pytest.raises(StoreError, match="cannot be recorded"):
        parts.write_part(tmp_path, 0, bad, 0, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0, 1, 4, 100, -200, -8, -1])
def test_truncated_part_is_found(tmp_path, kept):
    path = parts.write_part(tmp_path, 0, _ROWS, 0, 1)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(parts.CorruptPartError, match="part-00000"):
        parts.read_part(path)


def test_any_flipped_byte_is_found(tmp_path):
    path = parts.write_part(tmp_path, 0, _ROWS, 0, 1)
    good = path.read_bytes()
    for offset in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[offset] ^= 0x15
        path.write_bytes(damaged)
        with pytest.raises(parts.CorruptPartError, match="checksum"):
            parts.read_part(path)
    path.write_bytes(good)
    assert parts.read_part(path).table.num_rows == 3


@pytest.mark.parametrize("content", [None, b"", b"0" * 64])
def test_part_without_its_checksum_is_not_trusted(tmp_path, content):
    path = parts.write_part(tmp_path, 0, _ROWS, 0, 1)
    parts.checksum_path(path).unlink()
    if content is not None:
        parts.checksum_path(path).write_bytes(content)
    with pytest.raises(parts.CorruptPartError, match="part-00000"):
        parts.read_part(path)


def test_parts_are_in_the_order_of_their_numbers(tmp_path):
    for index in (2, 99999, 100000):
        parts.write_part(tmp_path, index, {"a": [1]}, 0, 1)
    indices = [parts.part_index(path) for path in parts.part_paths(tmp_path)]
    assert indices == [2, 99999, 100000]


def test_checksum_file_is_what_sha256sum_reads(tmp_path):
    path = parts.write_part(tmp_path, 0, _ROWS, 0, 1)
    text = parts.checksum_path(path).read_text()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert text == f"{digest}  part-00000.parquet\n"


def test_the_same_rows_give_the_same_bytes(tmp_path):
    first = parts.write_part(tmp_path, 0, _ROWS, 0, 1).read_bytes()
    assert parts.write_part(tmp_path, 0, _ROWS, 0, 1).read_bytes() == first
    assert pq.read_table(tmp_path / "part-00000.parquet").num_rows == 3


def test_another_schema_version_is_refused_and_not_called_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "SCHEMA_VERSION", 99)
    path = parts.write_part(tmp_path, 0, _ROWS, 0, 1)
    monkeypatch.undo()
    with pytest.raises(parts.SchemaVersionError, match="version 99") as caught:
        parts.read_part(path)
    assert not isinstance(caught.value, parts.CorruptPartError)
