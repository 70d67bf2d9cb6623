"""LoRA over three tasks: the oracle, what moves, and what a merge changes."""

from functools import partial
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import lora
from tests import task_run, tiny
from tests.reference import lora as oracle
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle_optimizers
from tests.task_run import DATA, NET, SPEC, STEPS, TASKS, close

SGD = (oracle_optimizers.init_sgd, oracle_optimizers.sgd)
ADAM = (oracle_optimizers.init_adam, oracle_optimizers.adam)
CASES = {
    "algorithm 1": (SGD, {"init_std": 0.5}),
    "half merged": (SGD, {"merge_scale": 0.5, "alpha": 2.0, "init_std": 0.5}),
    "alpha by rank": (
        ADAM,
        {"alpha": 3.0, "scaling": "by_rank", "rank": 3, "adapter_step_scale": 0.5},
    ),
    "head and biases in full": (
        ADAM,
        {"layers": "hidden", "train_head": True, "train_bias": True},
    ),
    "one layer, optimiser kept": (
        ADAM,
        {"layers": ("h2",), "train_bias": True, "reset_optimizer": False},
    ),
}


def hyper_of(settings, optimizer):
    name = "sgd" if optimizer is SGD else "adam"
    return lora.Hyper(**{"step_size": 0.02, "optimizer": name, "rank": 2} | settings)


def expected_run(hyper, optimizer, first, drawn):
    """The oracle's acting networks: after each step of each task, and merged."""
    init, update = optimizer
    names = {"all": ("h1", "h2", "head"), "hidden": ("h1", "h2")}.get(
        hyper.layers, hyper.layers
    )
    s = oracle.scale(hyper.alpha, hyper.rank, hyper.scaling)
    step = partial(update, step_size=hyper.step_size)
    own_step = partial(update, step_size=hyper.step_size * hyper.adapter_step_scale)

    def trained(module, leaf):
        if module == "head" and hyper.train_head:
            return True
        return leaf == "bias" and hyper.train_bias

    core, found = oracle_mlp.cast(first), []
    states = (init(core), None)
    for task in range(TASKS):
        adapters = oracle.start_adapters({n: drawn[task][n] for n in names})
        if hyper.reset_optimizer:
            states = (init(core), init(adapters))
        elif states[1] is None:
            states = (states[0], init(adapters))
        networks = []
        for i in range(STEPS):
            now = core if task == 0 else oracle.acting(core, adapters, s)
            x, y = DATA.x[task, i], DATA.y[task, i]
            grads = oracle_mlp.loss_and_grads(now, x, y)[2]
            if task == 0:
                core, state = step(core, grads, states[0])
                states = (state, states[1])
                networks.append(core)
            else:
                core, adapters, states = oracle.adapter_step(
                    core, adapters, grads, states, s=s, trained=trained,
                    optimizer=step, own_optimizer=own_step,
                )  # fmt: skip
                networks.append(oracle.acting(core, adapters, s))
        if task > 0:
            core = oracle.merge(core, adapters, s, hyper.merge_scale)
        found.append((networks, core))
    return found


@pytest.mark.parametrize("name", CASES)
def test_three_tasks_step_beside_the_oracle(name):
    optimizer, settings = CASES[name]
    hyper = hyper_of(settings, optimizer)
    method = lora.make(NET, SPEC, hyper)
    tasks = task_run.run(method, DATA)
    drawn = [task.start.extra["lora"]["adapters"] for task in tasks]
    first = method.init(tiny.KEY).net.params
    expected = expected_run(hyper, optimizer, first, drawn)
    for task, (networks, merged) in zip(tasks, expected, strict=True):
        for learner, network in zip(task.steps, networks, strict=True):
            close(learner.net.params, jax.tree.map(np.float32, network))
        close(task.end.net.params, jax.tree.map(np.float32, merged))


@pytest.fixture(scope="module")
def default_run():
    method = lora.make(NET, SPEC, lora.Hyper(step_size=0.05, init_std=0.5, rank=2))
    return method, task_run.run(method, DATA)


def test_only_adapters_move_after_the_first_task(default_run):
    _, tasks = default_run
    before = tasks[0].end.net.params
    for task in tasks[1:]:
        core = task.start.extra["lora"]["core"]
        for learner in task.steps:
            chex.assert_trees_all_equal(learner.extra["lora"]["core"], core)
            for name, layer in learner.net.params.items():
                chex.assert_trees_all_equal(layer["bias"], before[name]["bias"])
        change = task.end.net.params["h1"]["kernel"] - core["h1"]
        values = np.linalg.svd(np.asarray(change), compute_uv=False)
        assert values[0] > 1e-3
        assert values[2] < 1e-5 * values[0]  # of rank 2


def test_merging_in_full_changes_no_bit(default_run):
    method, tasks = default_run
    batch = tiny.at(tiny.at(DATA, 0), 0)
    for task in tasks:
        chex.assert_trees_all_equal(task.steps[-1].net, task.end.net)
        chex.assert_trees_all_equal(
            method.predict(task.steps[-1], batch)[0], method.predict(task.end, batch)[0]
        )


def test_a_task_starts_from_the_core(default_run):
    _, tasks = default_run
    for before, after in pairwise(tasks):
        chex.assert_trees_all_equal(before.end.net, after.start.net)


def test_updates_are_what_has_moved(default_run):
    method, tasks = default_run
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(DATA, 1), 1))
    clock = tiny.clock(21)._replace(task=jnp.int32(1))
    before = tasks[1].steps[0]
    after, signals = method.step(tiny.KEY, clock, batch, before)
    expected = jax.tree.map(np.subtract, after.net.params, before.net.params)
    chex.assert_trees_all_equal(signals.updates, expected)
