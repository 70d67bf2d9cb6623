"""Locks, kills, full disks, damage: what is on disk afterwards, and the way on."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import atomic, checkpoints, parts, store
from cl_bench.atomic import StoreError

_ROOT = Path(__file__).resolve().parent.parent


def _rows(first: int, last: int) -> dict[str, np.ndarray]:
    return {"segment": np.arange(first, last), "score": np.arange(first, last) / 7}


def _chunk(group: Path, index: int, checkpoint: bool = True) -> None:
    """Chunk `index` of a run whose chunks are two segments."""
    end = 2 * index + 2
    parts.write_part(group, index, _rows(end - 2, end), end - 2, end)
    if checkpoint:
        checkpoints.save(group, end, index + 1, {"w": np.full(3, end, np.float32)})


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=_ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def group(tmp_path: Path) -> Path:
    return store.group_dir(tmp_path, "g")


def test_second_process_is_refused_and_kill_9_frees_the_lock(tmp_path):
    holder = _start(
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
    writer = _start(
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


def test_disk_full_names_the_path_and_keeps_the_earlier_parts(group, monkeypatch):
    _chunk(group, 0, checkpoint=False)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        _chunk(group, 1, checkpoint=False)
    text = str(caught.value)
    assert "part-00001.sha256: No space left on device" in text
    assert "1 earlier parts of this group are intact" in text
    names = sorted(p.name for p in group.iterdir())
    assert names == ["part-00000.parquet", "part-00000.sha256"]
    parts.read_part(parts.part_path(group, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits as on Linux")
def test_real_write_failures_of_parts_checkpoints_and_records(tmp_path):
    writer = _start(
        """
        import resource, sys
        import numpy as np
        from cl_bench import checkpoints, parts, records, store
        from cl_bench.atomic import StoreError
        group = store.group_dir(sys.argv[1], "g")
        noise = np.random.default_rng(0).random(4096)
        small = {"a": noise[:8].astype("float32")}
        parts.write_part(group, 0, small, 0, 1)
        checkpoints.save(group, 1, 1, small)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for write in (
            lambda: parts.write_part(group, 1, {"a": noise}, 1, 2),
            lambda: checkpoints.save(group, 2, 2, {"a": noise.astype("float32")}),
        ):
            try:
                write()
            except StoreError as error:
                print("REFUSED", str(error).replace(chr(10), " "))
        print("RESUME", tuple(store.consistent_resume(group)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 4096))
        try:
            records.compact(sys.argv[1])
        except StoreError as error:
            print("REFUSED", error)
        """,
        tmp_path,
    )
    output, _ = writer.communicate(timeout=120)
    lines = [t for t in output.splitlines() if t.startswith(("REFUSED", "RESUME"))]
    assert len(lines) == 4, output
    assert "part-00001.parquet" in lines[0] and "File too large" in lines[0]
    assert "step-00000002" in lines[1] and "Earlier checkpoints" in lines[1]
    assert lines[2] == "RESUME (1, 1)"
    assert "records.parquet" in lines[3] and "All parts are intact" in lines[3]
    assert not list(tmp_path.rglob(".*.tmp"))


def test_resume_of_nothing_is_the_start(group):
    assert store.consistent_resume(group) == (0, 0)


def test_parts_beyond_the_checkpoint_are_removed(group):
    _chunk(group, 0)
    _chunk(group, 1, checkpoint=False)
    _chunk(group, 2, checkpoint=False)
    assert store.consistent_resume(group) == (2, 1)
    assert [p.stem for p in group.glob("part*")] == ["part-00000"] * 2


def test_newest_checkpoint_wins_and_the_other_stays(group):
    for index in range(3):
        _chunk(group, index)
    assert store.consistent_resume(group) == (6, 3)
    assert len(parts.part_paths(group)) == 3
    assert checkpoints.saved(group) == [4, 6]


@pytest.mark.parametrize(
    ("damaged", "expected"),
    [(4, (8, 4)), (3, (6, 3)), (2, (0, 0)), (0, (0, 0))],
)
def test_damaged_part_takes_resume_before_it(group, caplog, damaged, expected):
    for index in range(4):  # checkpoints stay at segments 6 and 8
        _chunk(group, index)
    _chunk(group, 4, checkpoint=False)
    _flip(parts.part_path(group, damaged))
    assert store.consistent_resume(group) == expected
    assert len(parts.part_paths(group)) == expected[1]
    assert f"part-{damaged:05d}.parquet" in caplog.text
    assert all(n <= expected[0] for n in checkpoints.saved(group))


def test_missing_part_takes_resume_before_it(group):
    for index in range(3):
        _chunk(group, index)
    parts.part_path(group, 2).unlink()
    assert store.consistent_resume(group) == (4, 2)


def test_damaged_checkpoint_falls_back_to_the_one_before_then_to_the_start(
    group, caplog
):
    for index in range(3):
        _chunk(group, index)
    _flip(group / "checkpoints" / "step-00000006.json")
    assert store.consistent_resume(group) == (4, 2)
    assert "step-00000006" in caplog.text
    assert len(parts.part_paths(group)) == 2
    _flip(next((group / "checkpoints" / "step-00000004").rglob("d/*")))
    assert store.consistent_resume(group) == (0, 0)
    assert parts.part_paths(group) == [] and checkpoints.saved(group) == []


def test_part_that_starts_elsewhere_is_not_trusted(group):
    _chunk(group, 0)
    parts.write_part(group, 1, _rows(3, 5), 3, 5)
    checkpoints.save(group, 5, 2, {"w": np.zeros(1, np.float32)})
    assert store.consistent_resume(group) == (2, 1)


def test_checkpoint_that_disagrees_with_the_parts_is_not_trusted(group, caplog):
    _chunk(group, 0)
    _chunk(group, 1, checkpoint=False)
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
    _chunk(group, 0, checkpoint=False)
    monkeypatch.undo()
    with pytest.raises(parts.SchemaVersionError):
        store.consistent_resume(group)
    assert len(parts.part_paths(group)) == 1


def test_done_means_every_part_is_sound(group):
    assert not store.is_done(group)
    for index in range(2):
        _chunk(group, index, checkpoint=False)
    store.mark_done(group, {"wall_seconds": 1.5})
    assert store.is_done(group)
    assert atomic.read_json(group / "done.json")["wall_seconds"] == 1.5
    _flip(parts.part_path(group, 1))
    assert not store.is_done(group)
    assert store.consistent_resume(group) == (0, 0)
    assert not (group / "done.json").exists()


def test_damaged_done_mark_is_not_done(group):
    _chunk(group, 0, checkpoint=False)
    for text in ("{", "[]", "{}"):
        (group / "done.json").write_text(text)
        assert not store.is_done(group)
