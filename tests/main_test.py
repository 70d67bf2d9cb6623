"""The command line from end to end: what it runs, refuses, prints and leaves."""

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from cl_bench import atomic, command_line, main, provenance, store
from cl_bench.datasets._source import MissingDatasetError
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError
from tests import small_study

METHOD = '''
"""Backprop that learns from the first steps only."""

import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods._compose import compose

REFERENCE = "none"
NEEDS: frozenset[str] = frozenset()


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    last_step: float = 20.0


def make(net, spec, hyper):
    method = compose(net, spec, optimizers.make(hyper))

    def step(key, clock, batch, learner):
        new, signals = method.step(key, clock, batch, learner)
        late = clock.step >= hyper.last_step
        kernel = jnp.where(late, 0.0, 1.0) * new.net.params["head"]["kernel"]
        head = {**new.net.params["head"], "kernel": kernel}
        net = new.net._replace(params={**new.net.params, "head": head})
        return new._replace(net=net), signals

    return method._replace(step=step)
'''


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A finished study: its experiment, its workdir, what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    experiment, workdir = small_study.write(folder), folder / "out"
    code, out, err = small_study.finish(
        small_study.start(
            cache, f"--config={experiment}", f"--workdir={workdir}", "--noreport"
        )
    )
    assert code == 0, err
    return experiment, workdir, out + err


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
    return small_study.write(tmp_path)


def test_every_row_says_what_it_is(finished):
    table = small_study.rows(finished[1])
    assert table.num_rows == 2 * 4 * 3  # seeds x tasks x segments
    first = table.slice(0, 1).to_pylist()[0]
    told = {k: first[k] for k in ("study", "benchmark", "stream", "network", "method")}
    assert told == {
        "study": "small", "benchmark": "small_images", "stream": "permuted",
        "network": "mlp", "method": "backprop",
    }  # fmt: skip
    assert first["arm"] == "backprop"
    assert len(set(table["run_id"].to_pylist())) == 2
    for run in (table.slice(0, 12), table.slice(12, 12)):
        column = {name: run[name].to_numpy() for name in run.column_names}
        assert len(set(column["run_id"])) == len(set(column["seed"])) == 1
        assert column["task"].tolist() == [t for t in range(4) for _ in range(3)]
        assert column["segment"].tolist() == [0, 1, 2] * 4
        assert column["step"].tolist() == list(range(10, 130, 10))
        # A task's metrics stand on its last segment, those of its start on its first.
        measured = ~np.isnan(column["online_accuracy"])
        assert measured.tolist() == [False, False, True] * 4
        measured = ~np.isnan(column["dead_units"])
        assert measured.tolist() == [True, False, False] * 4
        assert not column["diverged"].any()
    assert set(table["seed"].to_pylist()) == {0, 1}


def test_group_json_is_the_cost_record(finished):
    (path,) = finished[1].glob("groups/*/group.json")
    facts = atomic.read_json(path)
    # 16 -> 5 -> 4 -> 4 with biases
    assert facts["parameters"] == (16 * 5 + 5) + (5 * 4 + 4) + (4 * 4 + 4)
    assert facts["learner_bytes"] >= 4 * facts["parameters"]
    assert facts["flops_per_step"] > 2 * facts["parameters"]
    assert facts["bytes_per_step"] > 4 * facts["parameters"]
    assert facts["charged_flops_per_step"] == facts["flops_per_step"]
    assert facts["learner_bytes_by_kind"] == {"network": facts["learner_bytes"]}
    assert facts["strategy"] == "map" and facts["lane_width"] == facts["lanes"] == 2
    assert facts["devices"] == 2 and facts["device"]
    assert facts["compile_seconds"] > 0 and facts["wall_seconds"] > 0
    steps = 2 * 120
    rate = facts["lane_steps_per_second"]
    assert rate == pytest.approx(steps / facts["wall_seconds"])


def test_provenance_and_config_trace_the_study(finished):
    experiment, workdir, _ = finished
    found = atomic.read_json(workdir / "provenance.json")
    assert found["versions"]["jax"] and found["versions"]["python"]
    assert f"--workdir={workdir}" in found["command_line"]
    assert found["device"]["platform"] == "cpu"
    assert found["wall_seconds"] > 0 and found["end_time"] >= found["start_time"]
    git = provenance.git_state(small_study.ROOT / "cl_bench") or {}
    assert (found["git"] or {}).get("commit") == git.get("commit")
    told = atomic.read_json(workdir / "config.json")
    assert told["experiment"] == str(experiment)
    assert told["config"]["arms"]["small_images: backprop"]["seeds"] == [0, 1]
    assert len(atomic.read_json(workdir / "runs.json")) == 2


def test_progress_is_two_plain_lines_where_there_is_no_terminal(finished):
    lines = [line for line in finished[2].splitlines() if " tasks" in line]
    assert [line.split(": ")[1].split("  ")[0] for line in lines] == [
        "0/4 tasks", "4/4 tasks",
    ]  # fmt: skip
    assert "\x1b" not in finished[2] and "score 0." in lines[1]


def test_a_finished_study_is_left_alone(finished, cache):
    experiment, workdir, _ = finished
    before, began = small_study.files(workdir), time.monotonic()
    process = small_study.start(
        cache, f"--config={experiment}", f"--workdir={workdir}", "--noreport"
    )
    code, out, err = small_study.finish(process)
    assert (code, out) == (0, f"Nothing to do: {workdir} is finished.\n"), err
    assert small_study.files(workdir) == before
    assert time.monotonic() - began < 60  # a busy machine: 2 s of it are imports


def test_the_report_is_built_once_where_it_is_missing(finished, cli, capsys):
    report = pytest.importorskip("cl_bench.report")
    if report.missing():
        pytest.skip("the extra `report` is not installed")
    args = f"--config={finished[0]}", f"--workdir={finished[1]}"
    cli(*args)
    page = finished[1] / "report.html"
    assert capsys.readouterr().out == f"Report: {page}\n"
    changed = page.stat().st_mtime_ns
    cli(*args)
    assert "Nothing to do" in capsys.readouterr().out
    assert page.stat().st_mtime_ns == changed


def test_a_second_process_is_refused(finished, cache):
    experiment, workdir, _ = finished
    before = small_study.files(workdir)
    with store.open_study(workdir):
        code, out, err = small_study.finish(
            small_study.start(cache, f"--config={experiment}", f"--workdir={workdir}")
        )
    assert code == 1 and out == ""
    assert re.search(r"cl_bench: .* is in use by process \d+ on", err)
    assert "Traceback" not in err
    assert small_study.files(workdir) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--config.seeds=3", r"backprop\.seeds: \[0,1\] -> \[0,1,2\]"),
        ("--config.method.step_size=0.5", r"hyper\.step_size: 0\.01 -> 0\.5"),
        ("--config.stream.num_tasks=5", r"stream\.num_tasks: 4 -> 5"),
        ("--config.execution.matmul_precision=high", r'"highest" -> "high"'),
        ("--config.study=other", r'study: "small" -> "other"'),
        ("--methods=l2", "small_images: l2: absent -> present"),
    ],
)
def test_a_changed_study_is_refused_with_its_differences(
    finished, cli, change, message
):
    before = small_study.files(finished[1])
    with pytest.raises(provenance.ConfigChangedError, match=message):
        cli(f"--config={finished[0]}", f"--workdir={finished[1]}", change)
    assert small_study.files(finished[1]) == before


def test_how_and_where_it_runs_may_change(finished, cli, tmp_path, capsys):
    cli(
        f"--config={finished[0]}", f"--workdir={finished[1]}", "--noreport",
        "--config.execution.lanes=vmap", f"--config.stream.data_dir='{tmp_path}'",
    )  # fmt: skip
    assert "Nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config.method.step_sise=0.1"], "Did you mean 'step_size'"),
        (["--config.metod.step_size=0.1"], "Did you mean 'method'"),
        (["--config.method.step_size=fast"], "step_size = 'fast': expected a number"),
        (["--config.method.step_size=nan"], "step_size"),
        (["--config.method.name=backprob"], "Did you mean 'backprop'"),
        (["--methods=backprop,contnual_backprop"], "Did you mean 'continual_backprop'"),
        (["--config.stream.name=permutted"], "Did you mean 'permuted'"),
        (["--config.network.activation=rellu"], "'relu'"),
        (["--config.metrics=online_acuracy"], "Did you mean 'online_accuracy'"),
        (["--config.stream.num_tasks=0"], "num_tasks = 0: expected at least 1"),
        (["--config.execution.lanes=mapp"], "Did you mean 'map'"),
        (["--benchmarks=smal"], "No experiment 'smal'"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    cli, experiment, tmp_path, args, message
):
    workdir = tmp_path / "out"
    with pytest.raises((UnknownNameError, ConfigError), match=re.escape(message)):
        cli(f"--config={experiment}", f"--workdir={workdir}", *args)
    assert not workdir.exists()


def test_a_mistake_ends_the_command_without_a_traceback(cache, experiment, tmp_path):
    process = small_study.start(
        cache, f"--config={experiment}", f"--workdir={tmp_path / 'out'}",
        "--config.method.step_sise=0.1",
    )  # fmt: skip
    code, out, err = small_study.finish(process)
    assert code == 1 and out == "" and "Traceback" not in err
    assert err.startswith("cl_bench: config.method.step_sise: ") and "step_size" in err
    assert not (tmp_path / "out").exists()


def test_a_config_file_that_raises_shows_its_own_traceback(cache, tmp_path):
    broken = small_study.write(tmp_path, "def get_config():\n    return {}['seven']\n")
    process = small_study.start(
        cache, f"--config={broken}", f"--workdir={tmp_path / 'out'}"
    )
    code, _, err = small_study.finish(process)
    assert code == 1 and f'File "{broken}", line 2, in get_config' in err
    assert err.rstrip().endswith("KeyError: 'seven'")
    assert not (tmp_path / "out").exists()


def test_a_missing_data_set_is_named_at_once(cli, experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    monkeypatch.setenv("CL_BENCH_CACHE", str(tmp_path / "cache"))
    began = time.process_time()
    with pytest.raises(MissingDatasetError) as error:
        cli(
            f"--config={experiment}", f"--workdir={tmp_path / 'out'}",
            "--config.stream.dataset=mnist", "--config.stream.dataset_options={}",
        )  # fmt: skip
    assert time.process_time() - began < 2
    for part in ("'mnist'", str(tmp_path / "sets"), "download mnist", "TFDS_DATA_DIR"):
        assert part in str(error.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_dry_run_tells_and_writes_nothing(cli, experiment, tmp_path, capsys):
    workdir = tmp_path / "out"
    cli(
        f"--config={experiment}", f"--workdir={workdir}", "--dry_run",
        "--methods=backprop,l2", "--config.seeds=5",
    )  # fmt: skip
    text = capsys.readouterr().out
    assert "10 runs (small_images) in 2 groups, 2 programs to compile" in text
    assert "1,200 lane-steps" in text
    assert re.search(
        r"l2-permuted-\w+: 5 lanes, 4 tasks x 30 steps, about \d.* kB", text
    )
    assert not workdir.exists()


def test_overrides_and_chosen_methods_reach_the_runs(cli, experiment, tmp_path, capsys):
    other = tmp_path / "other.py"
    other.write_text(
        small_study.EXPERIMENT.replace("small_images", "other_images").replace(
            "int(arg or 4)", "7"
        )
    )
    cli(
        f"--config={experiment}", "--dry_run", f"--benchmarks={experiment},{other}",
        "--methods=backprop,l2",
    )  # fmt: skip
    text = capsys.readouterr().out
    assert "8 runs (small_images, other_images) in 4 groups" in text
    assert "7 tasks x 30 steps" in text and "4 tasks x 30 steps" in text
    cli(
        f"--config={experiment}", "--dry_run",
        "--config.method.name=continual_backprop",
        "--config.method.step_size=[0.1,0.2]",
    )  # fmt: skip
    text = capsys.readouterr().out
    assert "4 runs (small_images) in 1 groups" in text
    assert "continual_backprop step_size=0.1, 2 runs" in text


def test_a_method_of_the_users_own(cache, tmp_path):
    (tmp_path / "early.py").write_text(METHOD)
    experiment, workdir = small_study.write(tmp_path), tmp_path / "out"
    process = small_study.start(
        cache, f"--config={experiment.name}:2", "--workdir=out", "--noreport",
        "--config.method.name=early", "--config.method.last_step=0.0",
        "--config.seeds=1", cwd=tmp_path,
    )  # fmt: skip
    code, _, err = small_study.finish(process)
    assert code == 0, err
    table = small_study.rows(workdir)
    assert set(table["method"].to_pylist()) == {"early"}
    assert table["step"].to_pylist() == [*range(10, 70, 10)]
    (run,) = atomic.read_json(workdir / "runs.json")
    assert run["hyper"]["last_step"] == 0.0 and run["hyper"]["step_size"] == 0.01


@pytest.mark.parametrize("below", ["", "out"])
def test_a_workdir_that_cannot_be(cli, experiment, tmp_path, below):
    (tmp_path / "place").write_text("a file")
    workdir = tmp_path / "place" / below
    with pytest.raises(atomic.StoreError, match="cannot be a workdir: .*another one"):
        cli(f"--config={experiment}", f"--workdir={workdir}")


def test_a_disk_that_is_full_in_any_other_place(cli, experiment, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "groups")

    monkeypatch.setattr(store, "group_dir", full)
    with pytest.raises(atomic.StoreError, match="groups: No space left.*same command"):
        cli(f"--config={experiment}", f"--workdir={tmp_path / 'out'}")
    monkeypatch.setattr(store, "group_dir", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        cli(f"--config={experiment}", f"--workdir={tmp_path / 'out'}")


def test_help_lists_every_flag():
    process = subprocess.run(
        [sys.executable, "-m", "cl_bench.main", "--help"],
        cwd=small_study.ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    own = ["config", "workdir", "methods", "benchmarks", "[no]dry_run", "[no]report"]
    for name in own:
        assert f"\n  --{name}: " in process.stdout
    assert "python -m cl_bench.main --config=experiments/x.py" in process.stdout


def test_workdir_or_dry_run_is_needed(cli, experiment):
    with pytest.raises(Exception, match="Give --workdir=DIR"):
        cli(f"--config={experiment}")


def test_resuming_takes_as_many_devices_as_the_study_has(tmp_path, monkeypatch):
    set_to: dict[str, Any] = {}
    monkeypatch.setattr("jax.config.update", set_to.__setitem__)
    monkeypatch.setattr(main, "_cores", lambda: 2)
    execution = {"devices": 0, "matmul_precision": "high", "compilation_cache": False}
    main.start_jax(execution, tmp_path)
    assert set_to["jax_num_cpu_devices"] == 2
    plan = Path(tmp_path / "groups" / "g" / "plan.json")
    plan.parent.mkdir(parents=True)
    plan.write_text('{"devices": 6, "strategy": "map", "width": 12}')
    main.start_jax(execution, tmp_path)
    assert set_to["jax_num_cpu_devices"] == 6
    main.start_jax(execution | {"devices": 3}, tmp_path)
    assert set_to["jax_num_cpu_devices"] == 3


def test_svd_threads_are_set_before_scipy_is_loaded():
    code = (
        "import sys, pathlib; from cl_bench import main; early = 'scipy' not in sys.modules;"
        "main.start_jax({'devices': 1, 'matmul_precision': 'high',"
        " 'compilation_cache': False}, pathlib.Path('nowhere'));"
        "import os; print(early, os.environ['OPENBLAS_NUM_THREADS'])"
    )
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    for given, expected in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")):
        command, env_of = [sys.executable, "-c", code], env | given
        found = subprocess.run(command, check=True, env=env_of, capture_output=True)
        assert found.stdout.split() == [b"True", expected.encode()]
