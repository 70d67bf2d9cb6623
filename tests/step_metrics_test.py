"""Metrics that gather something at every step, against hand-worked numbers."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.metrics import sample_plasticity, steps_to_threshold, zero_activations
from cl_bench.networks import mlp
from cl_bench.types import Batch, Clock, Learner, NetState, Signals
from tests import tiny
from tests.reference import plasticity_metrics as more

close = chex.assert_trees_all_close


def steps_of(module, inputs, net=None, spec=tiny.SPEC, first=0, **static):
    """What `read` gives after the steps `inputs`: (batch, learner, signals) each."""
    metric = module.make(net, spec, **static)
    state = metric.init()
    for i, (batch, learner, signals) in enumerate(inputs):
        clock = Clock(jnp.int32(i + 1_000), jnp.int32(2), jnp.int32(first + i))
        state = metric.update(state, clock, batch, learner, signals)
    return {name: float(v) for name, v in metric.read(state, None).items()}


def one_hot_steps(correct):
    """Steps of one example each, whose arg max is right where `correct` is 1."""
    for right in correct:
        y = jnp.zeros(1, jnp.int32)
        logits = jnp.eye(4)[jnp.array([0 if right else 1])]
        batch = Batch(None, y, jnp.ones(1), None, None)
        yield batch, None, Signals(None, logits, {}, {}, {})


def test_steps_to_threshold_by_hand():
    spec = tiny.SPEC._replace(batch_size=1, steps_per_task=12)
    right = [0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1]  # windows of 4: 2/4, 4/4, 3/4
    expected = {
        (0.5, 4): 4, (0.6, 4): 8, (1.0, 4): 8, (1.0, 3): 12, (1.0, 6): np.nan, (0.7, 5): 10,
    }  # fmt: skip
    for (level, window), steps in expected.items():
        chosen = {"level": level, "window": window, "spec": spec}
        found = steps_of(steps_to_threshold, one_hot_steps(right), **chosen)
        reached = float(np.isfinite(steps))
        assert found["threshold_reached"] == reached
        np.testing.assert_equal(found["steps_to_threshold"], float(steps))
        same = more.steps_to_threshold(np.array(right), level, window)
        np.testing.assert_equal(same, float(steps))


def test_steps_to_threshold_of_minibatches_and_bad_settings():
    spec = tiny.SPEC._replace(batch_size=10, steps_per_task=(6, 8))

    def steps():  # 7 of 10 right in each: float32 sums of 0.7 fall short of 2.1
        for _ in range(3):
            y = jnp.array([0] * 7 + [1] * 3, jnp.int32)
            logits = jnp.zeros((10, 4)).at[:, 0].set(1.0)
            batch = Batch(None, y, jnp.ones(10), None, None)
            yield batch, None, Signals(None, logits, {}, {}, {})

    found = steps_of(steps_to_threshold, steps(), spec=spec, level=0.7, window=3)
    assert found["steps_to_threshold"] == 3
    for bad in ({"window": 7}, {"window": 0}, {"level": 0.0}, {"level": 1.1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            steps_to_threshold.make(None, spec, **bad)


def test_zero_activations_by_hand():
    net = mlp.make(tiny.SPEC, widths=(3, 2))
    alive = {"h2": jnp.array([True, False])}
    learner = Learner(NetState({}, {}, alive, None), (), {})
    batch = Batch(None, None, jnp.array([1.0, 1.0, 0.0]), None, None)
    h1 = jnp.array([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0], [jnp.nan] * 3])  # 3 of 6 are 0
    h2 = jnp.array([[-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # unit 0: 1 of 2
    signals = Signals(None, None, {"x": h1, "h1": h1, "h2": h2}, {}, {})
    dense = signals._replace(acts={"h1": jnp.ones((3, 3)), "h2": jnp.ones((3, 2))})
    inputs = [(batch, learner, signals), (batch, learner, dense)]
    found = steps_of(zero_activations, inputs, net)
    name = "zero_activation_fraction"
    expected = {name: (4 / 8) / 2, f"{name}/h1": 0.5 / 2, f"{name}/h2": 0.5 / 2}
    close(found, expected, rtol=1e-6)
    broken = {"h1": h1.at[0, 0].set(jnp.nan), "h2": h2}
    inputs = [(batch, learner, signals._replace(acts=broken))]
    assert np.isnan(steps_of(zero_activations, inputs, net)[f"{name}/h1"])
    positions = {"h1": jnp.zeros((3, 2, 2, 3)), "h2": h2}
    inputs = [(batch, learner, signals._replace(acts=positions))]
    assert steps_of(zero_activations, inputs, net)[name] == pytest.approx(25 / 26)


def test_sample_plasticity_at_its_limits():
    spec, net = tiny.SPEC, mlp.make(tiny.SPEC, widths=())
    y = jnp.zeros(1, jnp.int32)
    batch = Batch(jnp.zeros((1, 12)), y, jnp.ones(1), jnp.arange(4)[None] < 2, y)

    def learner(bias):
        head = {"kernel": jnp.zeros((12, 4)), "bias": jnp.array(bias)}
        return Learner(NetState({"head": head}, {}, {}, None), (), {})

    def p(before, after):
        masked = jnp.array([[*before, -1e9, -1e9]])
        inputs = [
            (batch, learner([*after, 9.0, 9.0]), Signals(None, masked, {}, {}, {}))
        ]
        return steps_of(sample_plasticity, inputs, net, spec)["sample_plasticity"]

    assert p((0.0, 0.0), (0.0, 1.0)) == 0.0  # the loss grew
    assert p((0.0, 50.0), (50.0, 0.0)) == pytest.approx(1.0)
    assert p((0.0, 2.0), (0.0, 0.0)) == pytest.approx(
        1 - np.log(2) / np.log1p(np.exp(2.0))
    )
    assert p((50.0, 0.0), (50.0, 0.0)) == 1.0  # 0 against the floor of 1e-8
