"""Real signals to a process: it stops or dies, and the same command ends the study."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cl_bench import atomic, checkpoints
from tests import small_study

LONG = 60  # tasks, of 3 segments each: seconds of saving, so that a kill falls into it


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
