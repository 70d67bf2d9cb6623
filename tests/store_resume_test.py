"""Kills and damage: where a group resumes, what is trusted, and when it is done."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import atomic, checkpoints, parts, store
from tests import store_setting
from tests.store_setting import rows, write_chunk

group = store_setting.group


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_resume_of_nothing_is_the_start(group):
    assert store.consistent_resume(group) == (0, 0)


def test_parts_beyond_the_checkpoint_are_removed(group):
    write_chunk(group, 0)
    write_chunk(group, 1, checkpoint=False)
    write_chunk(group, 2, checkpoint=False)
    assert store.consistent_resume(group) == (2, 1)
    assert [p.stem for p in group.glob("part*")] == ["part-00000"] * 2


def test_newest_checkpoint_wins_and_the_other_stays(group):
    for index in range(3):
        write_chunk(group, index)
    assert store.consistent_resume(group) == (6, 3)
    assert len(parts.part_paths(group)) == 3
    assert checkpoints.saved(group) == [4, 6]


@pytest.mark.parametrize(
    ("damaged", "expected"),
    [(4, (8, 4)), (3, (6, 3)), (2, (0, 0)), (0, (0, 0))],
)
def test_damaged_part_takes_resume_before_it(group, caplog, damaged, expected):
    for index in range(4):  # checkpoints stay at segments 6 and 8
        write_chunk(group, index)
    write_chunk(group, 4, checkpoint=False)
    _flip(parts.part_path(group, damaged))
    assert store.consistent_resume(group) == expected
    assert len(parts.part_paths(group)) == expected[1]
    assert f"part-{damaged:05d}.parquet" in caplog.text
    assert all(n <= expected[0] for n in checkpoints.saved(group))


def test_missing_part_takes_resume_before_it(group):
    for index in range(3):
        write_chunk(group, index)
    parts.part_path(group, 2).unlink()
    assert store.consistent_resume(group) == (4, 2)


def test_damaged_checkpoint_falls_back_to_the_one_before_then_to_the_start(
    group, caplog
):
    for index in range(3):
        write_chunk(group, index)
    _flip(group / "checkpoints" / "step-00000006.json")
    assert store.consistent_resume(group) == (4, 2)
    assert "step-00000006" in caplog.text
    assert len(parts.part_paths(group)) == 2
    _flip(next((group / "checkpoints" / "step-00000004").rglob("d/*")))
    assert store.consistent_resume(group) == (0, 0)
    assert parts.part_paths(group) == [] and checkpoints.saved(group) == []


def test_part_that_starts_elsewhere_is_not_trusted(group):
    write_chunk(group, 0)
    parts.write_part(group, 1, rows(3, 5), 3, 5)
    checkpoints.save(group, 5, 2, {"w": np.zeros(1, np.float32)})
    assert store.consistent_resume(group) == (2, 1)


def test_checkpoint_that_disagrees_with_the_parts_is_not_trusted(group, caplog):
    write_chunk(group, 0)
    write_chunk(group, 1, checkpoint=False)
    checkpoints.save(group, 3, 2, {"w": np.zeros(1, np.float32)})
    assert store.consistent_resume(group) == (2, 1)
    assert "before checkpoint 3" in caplog.text


class _Killed(BaseException):
    """Like a signal: nothing but a finally clause sees it."""


def _run(group: Path, chunks: int = 3) -> None:
    """A study in small: the state of a chunk depends on all chunks before it."""
    state = {"w": jnp.ones(2)}
    start, index = store.consistent_resume(group)
    if start:
        state = checkpoints.restore(group, start, state)
    for chunk in range(index, chunks):
        state = {"w": jnp.sin(state["w"] * 3.0 + chunk)}
        row = {"segment": [chunk], "score": state["w"][:1]}
        parts.write_part(group, chunk, row, chunk, chunk + 1)
        checkpoints.save(group, chunk + 1, chunk + 1, state)
    store.mark_done(group, {})


@pytest.mark.parametrize("fatal", range(10))
def test_killed_at_any_write_and_run_again_gives_the_same_records(
    tmp_path, monkeypatch, fatal
):
    whole, cut = (store.group_dir(tmp_path / name, "g") for name in ("whole", "cut"))
    _run(whole)
    calls = iter(range(100))

    def replace(source: Path, target: Path) -> None:
        if next(calls) == fatal:
            raise _Killed
        os.rename(source, target)

    monkeypatch.setattr(atomic.os, "replace", replace)
    with pytest.raises(_Killed):
        _run(cut)
    monkeypatch.undo()
    assert not store.is_done(cut)
    _run(cut)
    assert store.is_done(cut)
    for path, again in zip(parts.part_paths(whole), parts.part_paths(cut), strict=True):
        assert path.read_bytes() == again.read_bytes()


def test_records_of_another_version_are_refused_and_not_deleted(group, monkeypatch):
    monkeypatch.setattr(parts, "SCHEMA_VERSION", 99)
    write_chunk(group, 0, checkpoint=False)
    monkeypatch.undo()
    with pytest.raises(parts.SchemaVersionError):
        store.consistent_resume(group)
    assert len(parts.part_paths(group)) == 1


def test_done_means_every_part_is_sound(group):
    assert not store.is_done(group)
    for index in range(2):
        write_chunk(group, index, checkpoint=False)
    store.mark_done(group, {"wall_seconds": 1.5})
    assert store.is_done(group)
    assert atomic.read_json(group / "done.json")["wall_seconds"] == 1.5
    _flip(parts.part_path(group, 1))
    assert not store.is_done(group)
    assert store.consistent_resume(group) == (0, 0)
    assert not (group / "done.json").exists()


def test_damaged_done_mark_is_not_done(group):
    write_chunk(group, 0, checkpoint=False)
    for text in ("{", "[]", "{}"):
        (group / "done.json").write_text(text)
        assert not store.is_done(group)
