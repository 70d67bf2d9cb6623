"""ReDo, GraMa, SNR, Hare and Tortoise, DASH and FIRE against the numpy oracles."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import dash, fire, grama, hare_tortoise, redo, snr
from cl_bench.networks import mlp
from cl_bench.types import Clock
from tests import tiny
from tests.reference import dash as oracle_dash
from tests.reference import fire as oracle_fire
from tests.reference import grama as oracle_grama
from tests.reference import hare_tortoise as oracle_tortoise
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle
from tests.reference import redo as oracle_redo
from tests.reference import snr as oracle_snr

STEPS = 50
PERIOD = 5
NET = mlp.make(tiny.SPEC, widths=(12, 10))
HYPER = {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "step_size": 0.003}
ADAM = {"b1": 0.8, "b2": 0.99, "eps": 1e-6}
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)
OPTIMIZERS = {
    "sgd": (oracle.init_sgd, partial(oracle.sgd, step_size=0.003)),
    "adam": (oracle.init_adam, partial(oracle.adam, step_size=0.003, **ADAM)),
}


def fresh_networks():
    """What the reset transform draws at every step, stacked over the steps."""
    counts = np.arange(STEPS, dtype=np.int32)

    def draw(i):
        key = jax.random.fold_in(tiny.step_key(i), 2)
        return NET.init(jax.random.fold_in(key, 0)).params

    drawn = tiny.quick_jit(jax.vmap(draw))(counts)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), drawn)


def compare(method, optimizer, step, state, data=None):
    """`step(i, params, grads, opt, state, activations)`; returns all masks."""
    data = tiny.batches(STEPS) if data is None else data
    first, learners, _ = tiny.run(method, data)
    params = oracle_mlp.cast(first.net.params)
    opt, rows, masks = OPTIMIZERS[optimizer][0](params), [], []
    for i in range(STEPS):
        _, acts, grads = oracle_mlp.loss_and_grads(params, data.x[i], data.y[i])
        acts = {name: acts[name] for name in ("h1", "h2")}
        params, opt, state, mask = step(i, params, grads, opt, state, acts)
        rows.append(params)
        masks.append(np.concatenate([mask["h1"], mask["h2"]]))
    expected = jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows)
    close(learners.net.params, expected)
    return np.array(masks)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("source", ["fresh", "initial"])
def test_redo(optimizer, source):
    hyper = redo.Hyper(
        **HYPER, optimizer=optimizer, threshold=0.5, period=PERIOD, source=source
    )
    method = redo.make(NET, tiny.SPEC, hyper)
    drawn = fresh_networks()
    initial = oracle_mlp.cast(method.init(tiny.KEY).net.params)

    def step(i, params, grads, opt, state, acts):
        new = tiny.at(drawn, i) if source == "fresh" else initial
        return oracle_redo.step(
            params, grads, opt, state, acts, new,
            optimizer=OPTIMIZERS[optimizer][1], period=PERIOD, tau=0.5,
        )  # fmt: skip

    masks = compare(method, optimizer, step, oracle_redo.init())
    assert 0 < masks.sum() < masks.size / PERIOD  # some are reset, not all


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_grama(optimizer):
    hyper = grama.Hyper(**HYPER, optimizer=optimizer, threshold=0.3, period=PERIOD)
    drawn = fresh_networks()

    def step(i, params, grads, opt, state, acts):
        return oracle_grama.step(
            params, grads, opt, state, tiny.at(drawn, i),
            optimizer=OPTIMIZERS[optimizer][1], period=PERIOD, tau=0.3,
        )  # fmt: skip

    method = grama.make(NET, tiny.SPEC, hyper)
    masks = compare(method, optimizer, step, oracle_grama.init())
    assert 0 < masks.sum() < masks.size / PERIOD


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_snr(optimizer):
    limits = {"min_threshold": 2.0, "max_threshold": 6}
    hyper = snr.Hyper(**HYPER, **limits, optimizer=optimizer, percentile=0.7, period=10)
    drawn = fresh_networks()

    def step(i, params, grads, opt, state, acts):
        return oracle_snr.step(
            params, grads, opt, state, acts, tiny.at(drawn, i),
            optimizer=OPTIMIZERS[optimizer][1], period=10, eta=0.7, tau_min=2.0,
        )  # fmt: skip

    method = snr.make(NET, tiny.SPEC._replace(batch_size=1), hyper)
    state = oracle_snr.init(NET.init(tiny.KEY).params, tau_max=6)
    one_by_one = tiny.batches(STEPS, size=1)
    masks = compare(method, optimizer, step, state, one_by_one)
    assert masks[:10].sum() > 0  # at tau_max
    assert 0 < masks[10:].sum() < masks.size / 2


def test_snr_counts_ages_in_examples_and_thresholds_follow_them():
    hyper = snr.Hyper(
        step_size=0.0, percentile=0.5, min_threshold=1.0, max_threshold=400, period=8
    )
    method = snr.make(NET, tiny.SPEC, hyper)
    data = tiny.batches(8)
    data.x[:] = 0.0  # nothing reaches a unit but its bias, which is 0: none fires
    _, learners, _ = tiny.run(method, data)
    own = tiny.at(learners.extra["transform_0"], -1)
    np.testing.assert_array_equal(own.age, 8 * tiny.BATCH)
    np.testing.assert_array_equal(own.threshold, 1.0)  # no ages noted: the least


UNEQUAL = {
    "num_tasks": 3, "steps_per_task": (9, 25, 16),
    "task_examples": (2 * tiny.BATCH, 5 * tiny.BATCH, 2 * tiny.BATCH),
}  # fmt: skip
# Steps after which the hare returns, and those at which the task is another.
TORTOISE = {
    "one task": (
        {"examples_per_task": 3 * tiny.BATCH, "steps_per_task": STEPS},
        [6 * (i + 1) for i in range(8)],
    ),
    # Epochs of 2 and 5 steps, two to a period: 4 steps in tasks of 9 and 16, 10 in the
    # task of 25; the step of task 0 that is left over counts.
    "unequal tasks": (UNEQUAL, [4, 8, 18, 28, 35, 39, 43, 47]),
    "nobody is told": ({**UNEQUAL, "offers": frozenset()}, [10, 20, 30, 40, 50]),
}


@pytest.mark.parametrize("case", TORTOISE)
def test_hare_returns_to_the_tortoise(case):
    facts, returns = TORTOISE[case]
    hyper = hare_tortoise.Hyper(**HYPER, momentum=0.9, period=2, optimizer="adam")
    method = hare_tortoise.make(NET, tiny.SPEC._replace(**facts), hyper)
    data = tiny.batches(STEPS)
    # The clock that the runner shows a method that needs no boundaries: task 0, always.
    first, learners, _ = tiny.run(method, data)
    params = oracle_mlp.cast(first.net.params)
    opt, slow = oracle.init_adam(params), params
    for i in range(STEPS):
        _, _, grads = oracle_mlp.loss_and_grads(params, data.x[i], data.y[i])
        params, opt = OPTIMIZERS["adam"][1](params, grads, opt)
        slow = oracle_tortoise.ema(slow, params, 0.9)
        if i + 1 in returns:
            params = slow
        found = tiny.at(learners, i)
        close(found.net.params, jax.tree.map(np.float32, params))
        own = found.extra["transform_0"]
        close(own.slow.params, jax.tree.map(np.float32, slow))


def test_the_longest_period_is_never():
    hyper = hare_tortoise.Hyper(step_size=0.1, momentum=0.9, period=2**31 - 1)
    for facts in ({}, UNEQUAL):
        method = hare_tortoise.make(NET, tiny.SPEC._replace(**facts), hyper)
        _, learners, _ = tiny.run(method, tiny.batches(20))
        since = learners.extra["transform_0"].since
        np.testing.assert_array_equal(since, np.arange(1, 21))


def test_the_tortoise_predicts_where_it_is_asked_to():
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.batches(1), 0))
    logits = []
    for who in ("hare", "tortoise"):
        hyper = hare_tortoise.Hyper(step_size=0.5, momentum=1.0, evaluate=who)
        method = hare_tortoise.make(NET, tiny.SPEC, hyper)
        learner = method.init(tiny.KEY)
        before = method.predict(learner, batch)[0]
        learner, _ = method.step(tiny.KEY, tiny.clock(0), batch, learner)
        logits.append((before, method.predict(learner, batch)[0]))
    chex.assert_trees_all_equal(*logits[1])  # momentum 1: the slow copy never moves
    assert np.abs(logits[0][0] - logits[0][1]).max() > 1e-3


def at_boundary(method, data):
    """(start_task's learner as numpy, its parameters before) at step 10."""
    learner = method.init(tiny.KEY)
    stacked = jax.tree.map(jnp.asarray, data)
    clock = Clock(jnp.int32(10), jnp.int32(1), jnp.int32(0))
    start = tiny.quick_jit(
        lambda k, c, learner: method.start_task(
            k, c, lambda i: tiny.at(stacked, i), learner
        )
    )
    first = Clock(*(jnp.int32(0),) * 3)
    chex.assert_trees_all_equal(
        start(tiny.KEY, first, learner).net.params, learner.net.params
    )
    return start(tiny.KEY, clock, learner).net.params, learner.net.params


@pytest.mark.parametrize("before_it", [5, 8])  # batches of the task before
def test_dash(before_it):
    count = 5
    each = (before_it * tiny.BATCH, count * tiny.BATCH)
    spec = tiny.SPEC._replace(num_tasks=2, task_examples=each, steps_per_task=100)
    method = dash.make(NET, spec, dash.Hyper(floor=0.2, alpha=0.4))
    data = tiny.batches(max(count, before_it))
    found, before = at_boundary(method, data)
    params = oracle_mlp.cast(before)
    grads = [
        oracle_mlp.loss_and_grads(params, data.x[i], data.y[i])[2] for i in range(count)
    ]
    expected = oracle_dash.boundary(params, grads, alpha=0.4, limit=0.2)
    close(found, jax.tree.map(np.float32, expected))


def test_dash_takes_filters_one_by_one():
    rng = np.random.default_rng(0)
    w, g = rng.normal(size=(2, 3, 3, 4, 5))
    close(
        dash.cosine(jnp.asarray(w), jnp.asarray(g)),
        np.float32(oracle_dash.cosine(w, g)),
    )


def test_fire():
    method = fire.make(NET, tiny.SPEC, fire.Hyper())
    found, before = at_boundary(method, tiny.batches(1))
    expected = oracle_fire.boundary(oracle_mlp.cast(before), skip=("head",))
    close(found, jax.tree.map(np.float32, expected))


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (2, 2, 6, 4), (5, 5), (7, 3)])
def test_fires_isometry_of_any_kernel(shape):
    kernel = np.random.default_rng(0).normal(size=shape)
    found = fire.isometry(jnp.asarray(kernel, jnp.float32), 10)
    close(found, np.float32(oracle_fire.isometric(kernel)), atol=1e-5)
