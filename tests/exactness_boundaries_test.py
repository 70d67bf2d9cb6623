"""What happens at task boundaries, 50 steps in five tasks, against the numpy oracles.

Full and head resets, boundary shrink and perturb, DASH and FIRE; and, at the end of
every tenth step, the reset of the last layers.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import noise
from cl_bench.methods import (
    backprop,
    boundary_shrink_perturb,
    dash,
    fire,
    full_reset,
    head_reset,
    last_layers_reset,
)
from cl_bench.networks import mlp
from tests import task_run, tiny
from tests.reference import dash as oracle_dash
from tests.reference import fire as oracle_fire
from tests.reference import layer_resets as oracle_resets
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle
from tests.reference import shrink_perturb as oracle_shrink

TASKS, STEPS = 5, 10
SPEC = task_run.spec(
    num_tasks=TASKS,
    steps_per_task=STEPS,
    steps_per_segment=STEPS,
    examples_per_task=STEPS * tiny.BATCH,
)
NET = mlp.make(SPEC, widths=(8, 6), init="pytorch")  # biases that are not 0
DATA = jax.tree.map(
    lambda leaf: leaf.reshape(TASKS, STEPS, *leaf.shape[1:]),
    tiny.batches(TASKS * STEPS),
)
HYPER = {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "step_size": 0.02}
ADAM = {"b1": 0.8, "b2": 0.99, "eps": 1e-6}
OPTIMIZERS = {
    "momentum": (
        oracle.init_momentum, partial(oracle.momentum, step_size=0.02, mu=0.9),
    ),
    "adam": (oracle.init_adam, partial(oracle.adam, step_size=0.02, **ADAM)),
}  # fmt: skip
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)
both_optimisers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def made(module: Any, optimizer: str, **settings: Any):
    return module.make(
        NET, SPEC, module.Hyper(**HYPER, optimizer=optimizer, **settings)
    )


def untouched(at, params, opt):
    """What most methods do at a boundary, or after a step."""
    del at
    return params, opt


def compare(method, optimizer, boundary=untouched, after_step=untouched):
    """Parameters and moments at every point of the run, and what `run` gives of them.

    `boundary(task, params, opt)` at all boundaries but the first, where nothing may
    change, and `after_step(n, params, opt)` are the oracle's.
    """
    tasks = task_run.run(method, DATA)
    chex.assert_trees_all_equal(tasks[0].start, method.init(tiny.KEY))
    start, update = OPTIMIZERS[optimizer]
    params = oracle_mlp.cast(tasks[0].start.net.params)
    opt = start(params)
    for task, found in enumerate(tasks):
        if task > 0:
            params, opt = boundary(task, params, opt)
            if boundary is not untouched:
                assert jump(tasks[task - 1].end, found.start) > 0.01
        same(found.start, params, opt)
        for i, learner in enumerate(found.steps):
            _, _, grads = gradients(task, i, params)
            params, opt = update(params, grads, opt)
            params, opt = after_step(task * STEPS + i, params, opt)
            same(learner, params, opt)
    return tasks


def gradients(task, i, params):
    return oracle_mlp.loss_and_grads(params, DATA.x[task, i], DATA.y[task, i])


def same(learner, params, opt):
    expected = jax.tree.map(np.float32, (params, opt))
    close((learner.net.params, tiny.moments(learner.opt)), expected)


def jump(before, after):
    """The largest change of a weight, far above the tolerance."""
    moved = jax.tree.map(lambda a, b: a - b, before.net.params, after.net.params)
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(moved))


# ---- resets


@both_optimisers
def test_a_full_reset_is_a_new_network_and_a_new_optimiser(optimizer):
    method = made(full_reset, optimizer)

    def boundary(task, params, opt):
        fresh = oracle_mlp.cast(method.init(task_run.start_key(task)).net.params)
        return fresh, OPTIMIZERS[optimizer][0](fresh)

    tasks = compare(method, optimizer, boundary)
    starts = [task.start.net.params["h1"]["kernel"] for task in tasks]
    assert all(np.abs(a - b).max() > 0.1 for a, b in pairwise(starts))


def test_a_full_reset_takes_the_statistics_too():
    net = mlp.make(SPEC, widths=(5, 4), norm="online")
    method = full_reset.make(net, SPEC, full_reset.Hyper(optimizer="adam"))
    two = tiny.at(DATA, slice(2))
    first, second = task_run.run(method, two)
    new = method.init(task_run.start_key(1))
    close(second.start, new)
    assert np.abs(first.end.net.stats["h1"]["mean"]).max() > 0.01


@pytest.mark.parametrize(
    ("optimizer", "head"), [("momentum", "zero"), ("adam", "zero"), ("adam", "redraw")]
)
def test_a_head_reset_is_of_the_head_and_its_moments(optimizer, head):
    method = made(head_reset, optimizer, head=head)

    def boundary(task, params, opt):
        fresh = None
        if head == "redraw":
            fresh = NET.init(task_run.start_key(task)).params
        return oracle_resets.reset_layers(params, opt, ["head"], fresh)

    compare(method, optimizer, boundary)


@pytest.mark.parametrize(("optimizer", "layers"), [("momentum", 1), ("adam", 2)])
def test_last_layers_start_anew_after_every_tenth_step(optimizer, layers):
    method = made(last_layers_reset, optimizer, layers=layers, period=10)

    def after_step(n, params, opt):
        if n % 10 < 9:
            return params, opt
        key = jax.random.fold_in(tiny.step_key(n), 2)
        fresh = NET.init(jax.random.fold_in(key, 0)).params
        names = oracle_resets.last(params, layers)
        return oracle_resets.reset_layers(params, opt, names, fresh)

    compare(method, optimizer, after_step=after_step)


@pytest.mark.parametrize(
    ("module", "settings", "optimizer"),
    [
        (full_reset, {}, "adam"),
        (head_reset, {}, "momentum"),
        (head_reset, {"head": "redraw"}, "adam"),
    ],
)
def test_resets_are_backprop_in_the_first_task_bit_by_bit(module, settings, optimizer):
    """Op by op, `start_task` of the only task included."""
    learners = []
    for method in (made(module, optimizer, **settings), made(backprop, optimizer)):
        at = task_run.clock(STEPS, 0, 0)
        key = task_run.start_key(0)  # other than the first network's
        learner = method.start_task(key, at, None, method.init(tiny.KEY))
        for i in range(3):
            batch = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[0, i]), DATA)
            at = task_run.clock(STEPS, 0, i)
            learner, _ = method.step(tiny.step_key(i), at, batch, learner)
        learners.append(learner)
    chex.assert_trees_all_equal(*learners)


# ---- shrinking and projecting


@both_optimisers
def test_ash_and_adams_shrink_and_perturb(optimizer):
    method = made(boundary_shrink_perturb, optimizer, keep=0.6, noise_std=0.05)

    def boundary(task, params, opt):
        xi = noise.normal_like(
            task_run.start_key(task), NET.init(tiny.KEY).params, "exact"
        )
        xi = oracle_mlp.cast(xi)
        return oracle_shrink.ash_adams(params, xi, shrink=0.6, noise_std=0.05), opt

    compare(method, optimizer, boundary)


@both_optimisers
def test_dash(optimizer):
    method = made(dash, optimizer, floor=0.2, alpha=0.4)
    shares = []

    def boundary(task, params, opt):
        grads = [gradients(task, i, params)[2] for i in range(STEPS)]
        moved = oracle_dash.boundary(params, grads, alpha=0.4, limit=0.2)
        parts = oracle_mlp.map_params(lambda a, b: (a / b).ravel(), moved, params)
        shares.extend(leaf for layer in parts.values() for leaf in layer.values())
        return moved, opt

    compare(method, optimizer, boundary)
    share = np.concatenate(shares)
    between = (share > 0.21) & (share < 0.99)
    assert 0.05 < between.mean() < 0.95  # some shrink by the cosine, some by the floor


@pytest.mark.parametrize(
    ("optimizer", "mix", "iterations"), [("momentum", 1.0, 10), ("adam", 0.4, 3)]
)
def test_fire(optimizer, mix, iterations):
    """Three iterations end short of an isometry: their number matters."""
    method = made(fire, optimizer, mix=mix, iterations=iterations)

    def boundary(task, params, opt):
        moved = oracle_fire.boundary(params, iterations=iterations, skip=("head",))
        return oracle_mlp.map_params(
            lambda p, q: (1 - mix) * p + mix * q, params, moved
        ), opt

    compare(method, optimizer, boundary)
