"""Out of disk: what is written stays, and the same command does the rest."""

import errno
import os

import pytest

from cl_bench import atomic, checkpoints, parts
from cl_bench import store as store_module
from tests import resume_setting, small_study
from tests.resume_setting import run_main

quick = resume_setting.quick
expected = resume_setting.expected
whole = resume_setting.whole


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
