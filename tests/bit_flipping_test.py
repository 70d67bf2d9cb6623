"""Slowly-changing regression against the plain version, and its metric by hand."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_bench import runner
from cl_bench.methods import backprop
from cl_bench.metrics import online_loss
from cl_bench.networks import mlp
from cl_bench.registry import UnknownNameError
from cl_bench.streams import bit_flipping
from cl_bench.types import Signals
from tests.reference import bit_flipping as reference

NOTHING: Any = None  # what a metric that only sums losses does not look at
KEY = jax.random.key(3)
SMALL = {"num_tasks": 6, "steps_per_task": 64}


def start(stream, task=0, key=KEY):
    return jax.jit(stream.start)(stream.load(), key, jnp.int32(task))


def walk(stream, state, steps):
    batch = jax.jit(jax.vmap(lambda i: stream.batch(stream.load(), state, i)))
    return batch(jnp.arange(steps))


def held_out(stream, state, split="test", i=0):
    """Minibatch i as the last task sees it."""
    last = jnp.int32(stream.spec.num_tasks - 1)
    return stream.held_out(stream.load(), state, split, last, jnp.int32(i))


def fixed_bits(stream, key=KEY):
    """[T, f]: the bits of every task that stay the same in it."""
    tasks = jnp.arange(stream.spec.num_tasks)
    starts = jax.vmap(lambda task: stream.start(stream.load(), key, task))(tasks)
    return np.asarray(starts.fixed)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from((3, 8)), st.floats(0.3, 0.9))
def test_the_target_network_is_the_plain_one(seed, bits, beta):
    target = bit_flipping.draw_target(jax.random.key(seed), bits, 7, beta)
    x = np.random.default_rng(seed).integers(0, 2, (5, bits)).astype(np.float32)
    w, b, v = (np.asarray(a) for a in (target.weights, target.biases, target[3]))
    thresholds = [
        reference.threshold(list(wi), bi, beta) for wi, bi in zip(w, b, strict=True)
    ]
    chex.assert_trees_all_close(
        np.asarray(target.threshold), np.array(thresholds, np.float32), atol=1e-5
    )
    drive = x @ w.T + b - np.array(thresholds)
    if np.abs(drive).min() < 1e-4:
        return  # float32 may decide a tie the other way
    ours = bit_flipping.respond(target, jnp.asarray(x))[:, 0]
    plain = [reference.respond(w, b, v, float(target.out_bias), beta, r) for r in x]
    chex.assert_trees_all_equal(np.asarray(ours), np.array(plain, np.float32))


def test_thresholds_are_never_met_exactly_under_the_defaults():
    """The drive is an integer and theta ends in .2 or .7: '>' and '>=' are the same."""
    target = bit_flipping.draw_target(KEY, 20, 100, 0.7)
    twice = np.asarray(2 * target.threshold) - 2 * 14.7
    chex.assert_trees_all_close(twice, np.round(twice), atol=1e-4)
    assert set(np.round(twice) % 2) == {1.0}  # half-integers, for either bias
    chex.assert_trees_all_equal(np.abs(target.weights), np.ones((100, 20), np.float32))


def test_targets_of_many_networks_vary_as_the_plain_ones_do():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (32, 20)).astype(np.float32)
    keys = jax.random.split(KEY, 400)

    def sample(key):
        return bit_flipping.respond(
            bit_flipping.draw_target(key, 20, 100, 0.7), jnp.asarray(x)
        )

    ours = np.asarray(jax.vmap(sample)(keys))[..., 0]
    plain = np.stack([reference.draw_targets(rng, 20, 100, 0.7, x) for _ in keys])
    assert abs(ours.mean() - plain.mean()) < 0.4  # five standard errors
    within, expected = ours.var(axis=1).mean(), plain.var(axis=1).mean()
    assert within == pytest.approx(expected, rel=0.15)


def test_one_bit_flips_with_every_task_and_each_is_chosen_alike():
    stream = bit_flipping.make(num_tasks=600, steps_per_task=1, flipping=9, bits=10)
    bits = fixed_bits(stream)
    task, chosen = np.nonzero(np.diff(bits, axis=0))
    chex.assert_trees_all_equal(task, np.arange(599))
    chex.assert_trees_all_equal(reference.flip_one(bits[0], list(chosen)), bits)
    counts = np.bincount(chosen, minlength=9)
    assert ((counts - 599 / 9) ** 2 / (599 / 9)).sum() < 26.1  # chi2, 8 df, p = 0.001


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    long, short = (bit_flipping.make(**{**SMALL, "num_tasks": n}) for n in (9, 4))
    chex.assert_trees_all_equal(start(long, 3), start(short, 3))


def test_all_bits_are_redrawn():
    stream = bit_flipping.make(num_tasks=400, steps_per_task=1, flips="all")
    bits = fixed_bits(stream)
    changed = np.abs(np.diff(bits, axis=0)).mean(axis=0)
    assert np.all(np.abs(changed - 0.5) < 0.13) and np.all(
        np.abs(bits.mean(axis=0) - 0.5) < 0.13
    )


@pytest.mark.parametrize("flips", bit_flipping.FLIPS)
def test_examples_are_the_task_s_bits_and_fair_coins_with_the_network_s_answer(flips):
    stream = bit_flipping.make(**SMALL, flips=flips, batch_size=8)
    state = start(stream, task=2)
    batches = walk(stream, state, 64)
    x = np.asarray(batches.x).reshape(-1, 20)
    chex.assert_trees_all_equal(x[:, :15], np.tile(state.fixed, (512, 1)))
    coins = x[:, 15:]
    assert np.isin(coins, (0, 1)).all()
    assert np.all(np.abs(coins.mean(axis=0) - 0.5) < 0.1)
    correlations = np.corrcoef(coins.T) - np.eye(5)
    assert np.abs(correlations).max() < 0.2
    target_key = jax.random.fold_in(KEY, 0)
    target = bit_flipping.draw_target(target_key, 20, 100, 0.7)
    y = bit_flipping.respond(target, jnp.asarray(x))
    chex.assert_trees_all_equal(batches.y.reshape(-1, 1), y)


def test_the_target_network_outlives_the_tasks_and_the_coins_do_not():
    stream = bit_flipping.make(**SMALL, bits=5, flipping=1)
    first, third = start(stream, 0), start(stream, 2)
    same = bool(first.fixed[0] == third.fixed[0])
    assert same == bool(jnp.all(first.targets == third.targets)) and same
    assert not jnp.all(first.codes == third.codes)


def test_held_out_inputs_are_every_input_of_the_task_once():
    stream = bit_flipping.make(**SMALL)
    state = start(stream, 1)
    test = held_out(stream, state)
    assert len({bytes(x) for x in np.asarray(test.x)}) == 32
    pairs = zip(np.asarray(test.x), np.asarray(test.y)[:, 0], strict=True)
    lookup = {bytes(x): y for x, y in pairs}
    seen = walk(stream, state, 64)
    for x, y in zip(np.asarray(seen.x), np.asarray(seen.y), strict=True):
        assert lookup[bytes(x[0])] == y[0, 0]
    assert not jnp.any(held_out(stream, state, i=1).weight)
    with pytest.raises(ValueError, match="every input of the task once"):
        held_out(stream, state, "fit")


def test_a_learner_s_error_is_the_plain_one_s():
    """The whole lane: stream, network, SGD, loss and metric, over two tasks."""
    stream = bit_flipping.make(num_tasks=2, steps_per_task=200)
    net = mlp.make(stream.spec, widths=(5,))
    metric = online_loss.make(net, stream.spec)
    run = runner.make_run(stream, net, backprop.make, [metric], frozenset())
    hyper = backprop.Hyper(step_size=0.01)
    carry = run.init(stream.load(), jnp.uint32(0), hyper)
    params = carry.learner.net.params
    _, rows = jax.jit(run.chunk, static_argnums=6)(
        stream.load(), jnp.uint32(0), hyper, carry, 0, 2, 2
    )
    key = jax.random.fold_in(runner.run_key(0), runner.STREAM)
    plain = tuple(params[m][k] for m, k in (("h1", "kernel"), ("h1", "bias")))
    plain += (params["head"]["kernel"][:, 0], params["head"]["bias"][0])
    for task in range(2):
        seen = walk(stream, start(stream, task, key), 200)
        x, y = np.asarray(seen.x)[:, 0], np.asarray(seen.y)[:, 0, 0]
        errors, plain = reference.train_relu(plain, x, y, 0.01)
        assert rows["online_loss"][task] == pytest.approx(errors.mean(), rel=1e-3)


def test_online_loss_by_hand():
    stream = bit_flipping.make(**SMALL)
    metric = online_loss.make(mlp.make(stream.spec), stream.spec)
    state = metric.init()
    for loss in (4.0, 1.0, 1.0):
        signals = Signals(jnp.float32(loss), *[NOTHING] * 4)
        state = metric.update(state, NOTHING, NOTHING, NOTHING, signals)
    expected = {"online_loss": jnp.float32(2)}
    chex.assert_trees_all_equal(metric.read(state, NOTHING), expected)
    error = stream.spec.loss.per_example(jnp.array([[3.0]]), jnp.array([[1.0]]))
    chex.assert_trees_all_equal(error, jnp.array([4.0]))  # no factor 1/2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flips": "al"}, "Did you mean 'all'"),
        ({"flipping": 0}, "works is flipping=8"),
        ({"bits": 20, "flipping": 21}, "works is flipping=20"),
        ({"bits": 30}, "works is flipping=18"),
        ({"target_units": 0}, "target_units=0"),
        ({"beta": float("nan")}, "beta=nan"),
        ({"beta": 1.1}, "beta=1.1.*from 0 to 1"),
        ({"num_tasks": 0}, "num_tasks=0"),
        ({"total_steps": 19_999}, "steps_per_task=10000, the .*steps_per_task=9999 or"),
        ({"total_steps": 10**6}, "hold 100 tasks.*not num_tasks=300"),
        ({"steps_per_task": 10, "steps_per_segment": 3}, "does not divide"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, message):
    error = UnknownNameError if "flips" in options else ValueError
    with pytest.raises(error, match=message):
        bit_flipping.make(**options)
