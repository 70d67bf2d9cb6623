"""A study of a few seconds, for the tests that run one from end to end."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pytest
from absl import flags
from absl.testing import flagsaver

from cl_bench import command_line, config, execute, launch, main, records, study
from cl_bench.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
# Several segments a task; a part and a checkpoint after every one of them.
EXPERIMENT = '''
from cl_bench import config


def get_config(arg=""):
    """`arg` is the number of tasks."""
    return config.study(
        name="small",
        benchmark="small_images",
        stream={
            "name": "permuted", "dataset": "synthetic", "num_tasks": int(arg or 4),
            "steps_per_task": 30, "steps_per_segment": 10,
            "dataset_options": {"train": 40, "test": 10, "size": 4, "classes": 4},
        },
        network={"name": "mlp", "widths": (5, 4)},
        method={"name": "backprop", "step_size": 0.01},
        metrics=("online_accuracy", "dead_units"),
        seeds=2,
        execution={
            "lanes": "map", "devices": 2, "chunk_seconds": 0.0,
            "checkpoint_seconds": 0.0,
        },
    )
'''


def write(folder: Path, text: str = EXPERIMENT) -> Path:
    """The experiment as a file of `folder`."""
    path = folder / "small.py"
    path.write_text(text)
    return path


def start(cache: Path, *args: str, cwd: Path = ROOT) -> subprocess.Popen:
    """`python -m cl_bench.main` in a process of its own, with its output piped."""
    own = {"PYTHONPATH": str(ROOT), "CL_BENCH_CACHE": str(cache), "COLUMNS": "100"}
    return subprocess.Popen(
        [sys.executable, "-m", "cl_bench.main", *args],
        cwd=cwd,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that ends by itself."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def settings(tmp_path: Path, arg: str = "") -> Any:
    """The configuration that the experiment's file gives."""
    return config.load(f"{write(tmp_path)}:{arg}").config


def launch_all(cfg: Any, workdir: Path, stop_after: int | None = None) -> None:
    """Run all groups in this process; raises Stopped after `stop_after` chunks."""
    chunks = 0

    def stopping() -> int:
        nonlocal chunks
        chunks += 1  # asked three times before the first chunk of a group
        return 15 if stop_after is not None and chunks >= stop_after + 3 else 0

    options = config.settings(cfg)["execution"]
    for group in study.group(study.expand(cfg)):
        with open(os.devnull, "w") as quiet:
            launch.run_study_group(group, workdir, options, Progress(quiet), stopping)


def compile_once(monkeypatch: Any) -> None:
    """Equal programs are compiled once in a test, however often it starts a study."""
    made: dict[Any, execute.Program] = {}
    compile_group = execute.compile_group

    def compiled(run, data, lanes, *args):
        shapes = jax.tree.structure(lanes), jax.tree.map(np.shape, lanes)
        key = (run.schedule.num_tasks, *map(str, shapes), args)
        if key not in made:
            made[key] = compile_group(run, data, lanes, *args)
        return execute.with_lanes(made[key], lanes)

    monkeypatch.setattr(execute, "compile_group", compiled)


def rows(workdir: Path) -> pa.Table:
    """All records, in an order that does not depend on how they were written."""
    order = [(name, "ascending") for name in ("run_id", "task", "segment")]
    return records.read_records(workdir).sort_by(order)


def bits(workdir: Path) -> dict[str, bytes]:
    """Column -> its bytes, so that equality is equality of every bit, NaN included."""
    table = rows(workdir)
    return {
        name: np.asarray(table[name].to_numpy()).astype(_plain(table[name])).tobytes()
        for name in table.column_names
    }


def _plain(column: pa.ChunkedArray) -> Any:
    host = column.to_numpy()
    return "U" if host.dtype == object else host.dtype


def files(workdir: Path) -> dict[str, tuple[int, int]]:
    """Name -> (time of the last change, size) of every file but the lock."""
    return {
        str(p.relative_to(workdir)): (p.stat().st_mtime_ns, p.stat().st_size)
        for p in sorted(workdir.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(monkeypatch):
    """The command line in this process; JAX's settings are those of the tests."""
    monkeypatch.setattr(main, "start_jax", lambda *_: None)

    def run(*args: Any) -> None:
        argv, overrides = command_line.split_overrides(["main", *map(str, args)])
        with flagsaver.flagsaver():
            main.main(flags.FLAGS(argv), overrides)

    return run


@pytest.fixture
def experiment(tmp_path):
    return write(tmp_path)
