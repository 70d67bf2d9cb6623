"""ReDo, GraMa, SNR, DASH and FIRE against the numpy oracles."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import dash, fire, grama, redo, snr
from cl_bench.networks import mlp
from cl_bench.types import Clock
from tests import tiny
from tests.reference import dash as oracle_dash
from tests.reference import fire as oracle_fire
from tests.reference import grama as oracle_grama
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle
from tests.reference import redo as oracle_redo
from tests.reference import snr as oracle_snr

STEPS = 50
PERIOD = 5
NET = mlp.make(tiny.SPEC, widths=(12, 10))
BIASED = mlp.make(tiny.SPEC, widths=(12, 10), init="pytorch")  # biases that are not 0
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
@pytest.mark.parametrize(
    ("source", "moment_reset"),
    [("fresh", "moments"), ("initial", "moments"), ("initial", "none")],
)
def test_redo(optimizer, source, moment_reset):
    fresh = source == "fresh"
    options = {"source": source, "moment_reset": moment_reset}
    hyper = redo.Hyper(
        **HYPER, **options, optimizer=optimizer, threshold=0.5, period=PERIOD
    )
    method = redo.make(NET if fresh else BIASED, tiny.SPEC, hyper)
    drawn = fresh_networks()
    initial = oracle_mlp.cast(method.init(tiny.KEY).net.params)

    def step(i, params, grads, opt, state, acts):
        return oracle_redo.step(
            params, grads, opt, state, acts, tiny.at(drawn, i) if fresh else initial,
            optimizer=OPTIMIZERS[optimizer][1], period=PERIOD, tau=0.5,
            initial=not fresh, keep_moments=moment_reset == "none",
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


@pytest.mark.parametrize(("size", "longest"), [(1, 6), (4, 12)])  # examples in a batch
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_snr(optimizer, size, longest):
    limits = {"min_threshold": 2.0, "max_threshold": longest}
    hyper = snr.Hyper(**HYPER, **limits, optimizer=optimizer, percentile=0.7, period=10)
    drawn = fresh_networks()

    def step(i, params, grads, opt, state, acts):
        return oracle_snr.step(
            params, grads, opt, state, acts, tiny.at(drawn, i),
            optimizer=OPTIMIZERS[optimizer][1], period=10, eta=0.7, tau_min=2.0,
        )  # fmt: skip

    method = snr.make(NET, tiny.SPEC._replace(batch_size=size), hyper)
    state = oracle_snr.init(NET.init(tiny.KEY).params, tau_max=longest)
    data = tiny.batches(STEPS, size=size)
    masks = compare(method, optimizer, step, state, data)
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


def test_dash_draws_a_dropout_mask_for_every_mini_batch():
    count = 6
    spec = tiny.SPEC._replace(num_tasks=2, task_examples=(1, count), batch_size=1)
    net = mlp.make(spec, widths=(12, 10), dropout=0.5, activation="tanh")
    data = tiny.batches(count, size=1)

    def gradient(i):
        def loss(params):
            state, key = net.init(tiny.KEY), jax.random.fold_in(tiny.KEY, i)
            at = state._replace(params=params)
            logits = net.apply(at, data.x[i], train=True, key=key)[0]
            return spec.loss.per_example(logits, data.y[i]).mean()

        return jax.grad(loss)(net.init(tiny.KEY).params)

    grads = [gradient(i) for i in range(count)]
    silent = [np.abs(g["h2"]["kernel"]).sum(axis=0) == 0 for g in grads]
    assert np.any(silent) and not np.all(silent, axis=0).any()
    hyper = dash.Hyper(floor=0.2, alpha=0.4)
    found, before = at_boundary(dash.make(net, spec, hyper), data)
    expected = oracle_dash.boundary(
        oracle_mlp.cast(before),
        [oracle_mlp.cast(g) for g in grads],
        alpha=0.4,
        limit=0.2,
    )
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
