"""Locks, and kill -9 while they are held or a part is written."""

import os
import signal

import pytest

from cl_bench import parts, store
from tests import store_setting
from tests.store_setting import start

group = store_setting.group


def test_second_process_is_refused_and_kill_9_frees_the_lock(tmp_path):
    holder = start(
        """
        import sys, time
        from cl_bench.store import open_study
        with open_study(sys.argv[1]):
            print("held", flush=True)
            time.sleep(100)
        """,
        tmp_path,
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        before = (tmp_path / ".lock").read_text()
        refused = pytest.raises(store.StudyLockedError)
        with refused as caught, store.open_study(tmp_path):
            pass
        assert f"process {holder.pid} on " in str(caught.value)
        assert "started 20" in str(caught.value)
        assert (tmp_path / ".lock").read_text() == before
        holder.send_signal(signal.SIGKILL)
    with store.open_study(tmp_path) as folder:
        assert f"process {os.getpid()} " in (folder / ".lock").read_text()
    with store.open_study(tmp_path):  # released at the end of the block
        pass


def test_open_study_makes_the_workdir_and_removes_half_written_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".records.parquet.1.tmp").write_bytes(b"half")
    with store.open_study(tmp_path / "deep" / "er"):
        pass
    with store.open_study(tmp_path / "deep") as folder:
        assert sorted(p.name for p in folder.iterdir()) == [".lock", "er"]


def test_kill_9_while_writing_leaves_the_earlier_parts(group):
    writer = start(
        """
        import sys, time
        from pathlib import Path
        from cl_bench import atomic, parts
        group = Path(sys.argv[1])
        parts.write_part(group, 0, {"a": [1]}, 0, 1)
        with atomic.replacing(parts.part_path(group, 1)) as file:
            file.write(b"PAR1 half of a part")
            file.flush()
            print("writing", flush=True)
            time.sleep(100)
        """,
        group,
    )
    with writer:
        assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
        writer.send_signal(signal.SIGKILL)
    assert len(list(group.glob(".*.tmp"))) == 1  # the half-written part
    assert [p.name for p in parts.part_paths(group)] == ["part-00000.parquet"]
    assert parts.read_part(parts.part_path(group, 0)).table["a"].to_pylist() == [1]
    store.consistent_resume(group)
    assert not list(group.glob(".*"))
