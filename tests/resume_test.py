"""Stopped, killed, damaged or out of disk: the same command ends with the same records.

What a process does when it is killed for real is tested once; every other moment by an
exception that nothing catches and that leaves its temporary files where they are.
"""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cl_bench import (
    atomic,
    checkpoints,
    config,
    cost,
    launch,
    main,
    parts,
    records,
    study,
)
from cl_bench import store as store_module
from tests import small_study

LONG = 60  # tasks, of 3 segments each: seconds of saving, so that a kill falls into it


class Killed(BaseException):
    """Ends the process of a test, in place of a signal."""


@pytest.fixture(scope="module")
def quick():
    """Starting a study again in this process costs nothing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_study.compile_once(monkeypatch)
        counted = dict.fromkeys(cost.FIELDS, 1)
        monkeypatch.setattr(cost, "measure", lambda *_: counted)
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory, quick):
    """The bits of the records where nothing interrupts the study."""
    folder = tmp_path_factory.mktemp("whole")
    small_study.launch_all(small_study.settings(folder), folder / "out")
    return small_study.bits(folder / "out")


@pytest.fixture
def whole(tmp_path, expected):
    """A study, and the bits of its records where nothing interrupts it."""
    return small_study.settings(tmp_path), expected


def run_main(cfg, workdir: Path) -> None:
    """What the command does, less its flags."""
    execution = config.settings(cfg)["execution"]
    main.run_study(workdir, study.expand(cfg), execution, {}, with_report=False)


def wait_for(process: subprocess.Popen, folder: Path, pattern: str, count: int) -> None:
    """Until the process has written so many files; fails where it ends before that."""
    for _ in range(60_000):
        if len(list(folder.glob(pattern))) >= count:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    raise AssertionError(f"no {count} {pattern} after minutes")


def test_killed_and_stopped_again_and_again(tmp_path):
    """SIGKILL in compilation and in a task, Ctrl-C, SIGTERM: the same bits at last."""
    cfg = small_study.settings(tmp_path, str(LONG))
    workdir, experiment = tmp_path / "out", tmp_path / "small.py"
    command = f"--config={experiment}:{LONG}", f"--workdir={workdir}", "--noreport"

    def interrupted(pattern: str, count: int, number: int) -> tuple[int, str]:
        process = small_study.start(tmp_path / "cache", *command)
        wait_for(process, workdir, pattern, count)
        process.send_signal(number)
        code, _, err = small_study.finish(process)
        return code, err

    part = "groups/*/part-*.parquet"
    # The plan is written just before the compilation, which takes longer than a poll.
    assert interrupted("groups/*/plan.json", 1, signal.SIGKILL)[0] == -signal.SIGKILL
    assert not list(workdir.glob(part))
    for count, number, code in ((4, signal.SIGTERM, 143), (20, signal.SIGINT, 130)):
        ended, err = interrupted(part, count, number)
        assert ended == code and "Traceback" not in err, err
        assert "Stopping after the running chunk; once more" in err
        assert f"Stopped and saved. The same command resumes {workdir}." in err
        at = newest_checkpoint(workdir)
        assert count <= at == len(list(workdir.glob(part)))
    assert interrupted(part, at + 9, signal.SIGKILL)[0] == -signal.SIGKILL
    done = newest_checkpoint(workdir) // 3
    assert at // 3 < done < LONG
    code, _, err = small_study.finish(small_study.start(tmp_path / "cache", *command))
    assert code == 0, err
    assert f": {done}/{LONG} tasks" in err  # goes on where it was
    small_study.launch_all(cfg, tmp_path / "whole")
    assert small_study.bits(workdir) == small_study.bits(tmp_path / "whole")
    entries = atomic.read_json(workdir / "provenance.json")
    assert len(entries["resumed"]) == 4
    assert ["end_time" in e for e in entries["resumed"]] == [True, True, False, True]


def newest_checkpoint(workdir: Path) -> int:
    """Segments done, as the newest checkpoint of the only group says."""
    (folder,) = (workdir / "groups").iterdir()
    return checkpoints.saved(folder)[-1]


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


@pytest.mark.parametrize("writes", [1, 4, 12, 25])
def test_a_full_disk(tmp_path, whole, monkeypatch, writes):
    cfg, expected = whole
    fsync, workdir = os.fsync, tmp_path / "out"
    left = 2 * writes  # a file and its folder

    def full(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(atomic.StoreError, match=r"No space left.*same command again"):
        run_main(cfg, workdir)
    written = {p: p.read_bytes() for p in workdir.rglob("part-*.parquet")}
    assert bool(written) == (writes > 5)
    for path in written:
        parts.read_part(path)  # proved by its checksum
    monkeypatch.setattr(os, "fsync", fsync)
    run_main(cfg, workdir)
    assert small_study.bits(workdir) == expected
    kept = [path for path, content in written.items() if path.read_bytes() == content]
    assert kept == [*written]


def test_a_full_disk_while_orbax_writes(tmp_path, whole, monkeypatch):
    cfg, expected = whole
    real = checkpoints._checkpointer()
    calls = 0

    class Full:
        def save(self, path, content):
            nonlocal calls
            calls += 1
            if calls == 4:
                path.mkdir()
                raise ValueError("RESOURCE_EXHAUSTED: No space left on device")
            real.save(path, content)

    monkeypatch.setattr(checkpoints, "_checkpointer", Full)
    with pytest.raises(atomic.StoreError, match=r"checkpoint .*No space left.*same"):
        small_study.launch_all(cfg, tmp_path / "out")
    monkeypatch.setattr(checkpoints, "_checkpointer", lambda: real)
    (group,) = (tmp_path / "out" / "groups").iterdir()
    assert store_module.consistent_resume(group) == (3, 3)
    small_study.launch_all(cfg, tmp_path / "out")
    assert small_study.bits(tmp_path / "out") == expected


def test_a_full_disk_is_seen_before_orbax_writes(tmp_path, whole, monkeypatch):
    cfg, expected = whole
    usage = checkpoints.shutil.disk_usage

    def full(path):
        used = usage(path)
        done = len(list(tmp_path.rglob("part-*.parquet")))
        return used._replace(free=used.free if done < 4 else 50_000)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.shutil, "disk_usage", full)
        with pytest.raises(atomic.StoreError, match=r"space left .*50,000 bytes are"):
            small_study.launch_all(cfg, tmp_path / "out")
    (group,) = (tmp_path / "out" / "groups").iterdir()
    assert store_module.consistent_resume(group) == (3, 3)
    small_study.launch_all(cfg, tmp_path / "out")
    assert small_study.bits(tmp_path / "out") == expected


STUCK = """
import hashlib, sys
from cl_bench import interrupts

with interrupts.caught() as stopping:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)  # minutes, outside Python
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once_where_python_cannot_see_it(number):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], cwd=small_study.ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert "once more to stop at once" in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    process.communicate()
