"""What flags of the command do: a dry run, overrides, methods, also the user's own."""

import re

from cl_bench import atomic
from tests import small_study

cache = small_study.cache
cli = small_study.cli
experiment = small_study.experiment
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
