"""Killed, stopped or damaged: the same command ends with the same records.

A kill is an exception that nothing catches and that leaves its temporary files where
they are.
"""

import os
from pathlib import Path

import pytest

from cl_bench import checkpoints, launch, parts, records
from tests import resume_setting, small_study
from tests.resume_setting import run_main

quick = resume_setting.quick
expected = resume_setting.expected
whole = resume_setting.whole


class Killed(BaseException):
    """Ends the process of a test, in place of a signal."""


def test_a_kill_at_any_write_changes_no_record(tmp_path, whole, monkeypatch):
    cfg, expected = whole
    replace, unlink = os.replace, Path.unlink
    left = None  # writes until the process dies

    def dying_replace(old, new):
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                raise Killed
        replace(old, new)

    def dying_unlink(path, missing_ok=False):
        if left is None or left >= 0:  # the dead tidy nothing up
            unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "replace", dying_replace)
    monkeypatch.setattr(Path, "unlink", dying_unlink)
    workdir, deaths, writes = tmp_path / "out", 0, 0
    while True:  # each process lives for some writes more than the one before
        writes, left = writes + 1, writes + 1
        try:
            run_main(cfg, workdir)
        except Killed:
            deaths += 1
        else:
            break
    left = None
    assert deaths >= 10
    assert small_study.bits(workdir) == expected
    assert not list(workdir.rglob("*.tmp"))


def test_a_kill_inside_every_checkpoint(tmp_path, whole, monkeypatch):
    """Between what Orbax writes and the manifest that proves it."""
    cfg, expected = whole
    real, saves = checkpoints._checkpointer(), 0

    class Dying:
        restore = real.restore

        def save(self, path, content):
            nonlocal saves
            real.save(path, content)
            saves += 1
            if saves % 3 == 0:
                raise Killed

    monkeypatch.setattr(checkpoints, "_checkpointer", Dying)
    deaths = 0
    while True:
        try:
            small_study.launch_all(cfg, tmp_path / "out")
        except Killed:
            deaths += 1
        else:
            break
    assert deaths >= 5
    assert small_study.bits(tmp_path / "out") == expected


def test_chunk_length_and_stops_change_no_bit(tmp_path, whole):
    cfg, expected = whole
    cfg.execution.chunk_seconds = 5.0
    cfg.execution.checkpoint_seconds = 1000.0
    for _ in range(2):
        with pytest.raises(launch.Stopped):
            small_study.launch_all(cfg, tmp_path / "out", stop_after=1)
    small_study.launch_all(cfg, tmp_path / "out")
    assert small_study.bits(tmp_path / "out") == expected
    (group,) = (tmp_path / "out" / "groups").iterdir()
    found = [parts.read_part(path) for path in parts.part_paths(group)]
    ends = [(part.first_segment, part.last_segment) for part in found]
    assert ends == [(0, 1), (1, 2), (2, 12)]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damage_newest_part(group: Path) -> None:
    truncate(parts.part_paths(group)[-1])


def damage_first_part(group: Path) -> None:
    truncate(parts.part_path(group, 0))


def damage_newest_checkpoint(group: Path) -> None:
    step = checkpoints.folder(group) / f"step-{checkpoints.saved(group)[-1]:08d}"
    truncate(max(step.rglob("*"), key=lambda p: p.stat().st_size * p.is_file()))


def damage_all_checkpoints(group: Path) -> None:
    for manifest in checkpoints.folder(group).glob("*.json"):
        truncate(manifest)


DAMAGES = {
    damage_newest_part: "part-00006.parquet is damaged",
    damage_first_part: "part-00000.parquet is damaged",
    damage_newest_checkpoint: "is damaged or missing. An earlier checkpoint",
    damage_all_checkpoints: "is damaged",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_damaged_is_done_again(tmp_path, whole, caplog, damage):
    cfg, expected = whole
    with pytest.raises(launch.Stopped):
        small_study.launch_all(cfg, tmp_path / "out", stop_after=7)
    (group,) = (tmp_path / "out" / "groups").iterdir()
    damage(group)
    small_study.launch_all(cfg, tmp_path / "out")
    assert DAMAGES[damage] in caplog.text
    assert small_study.bits(tmp_path / "out") == expected


@pytest.mark.parametrize("damaged", ["part-00003.parquet", "records.parquet"])
def test_a_finished_study_that_is_damaged_is_mended(tmp_path, whole, damaged):
    cfg, expected = whole
    workdir = tmp_path / "out"
    run_main(cfg, workdir)
    (path,) = workdir.rglob(damaged)
    truncate(path)
    run_main(cfg, workdir)
    assert records.is_current(workdir)
    assert small_study.bits(workdir) == expected
    before = small_study.files(workdir)
    run_main(cfg, workdir)
    assert small_study.files(workdir) == before
