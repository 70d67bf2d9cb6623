"""The further metrics of plasticity against hand-worked numbers and numpy oracles."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import registry, runner
from cl_bench.losses import softmax_cross_entropy
from cl_bench.methods import backprop
from cl_bench.metrics import (
    _ranks,
    dead_units,
    dead_units_kumar,
    effective_rank,
    sample_plasticity,
    srank_kumar,
    stable_rank,
    steps_to_threshold,
    update_norm,
    weight_norms,
    weight_rank,
    zero_activations,
)
from cl_bench.networks import mlp
from cl_bench.types import Batch, Clock, Learner, NetState, Probe, Signals, Stream
from tests import tiny
from tests.metrics_test import layers, read_start
from tests.reference import metrics as oracle
from tests.reference import mlp as oracle_mlp
from tests.reference import plasticity_metrics as more

close = chex.assert_trees_all_close
test_accuracy = registry.load(
    "metrics", "test_accuracy"
)  # a test_* name misleads pytest


# ---- at a task's start


def test_sranks_and_stable_rank_by_hand():
    h = np.zeros((5, 4), np.float32)  # singular values 30, 10, 0, 0
    h[0, 1], h[3, 2] = 30.0, -10.0
    assert read_start(stable_rank, {"h1": h})["stable_rank"] == pytest.approx(
        100 * (1000 / 900) / 4
    )
    # Cumulative shares .75, 1, 1, 1: one is below .99, none below .75.
    assert read_start(srank_kumar, {"h1": h})["srank_kumar"] == 1.0
    assert read_start(srank_kumar, {"h1": h}, delta=0.3)["srank_kumar"] == 0.0
    both = read_start(srank_kumar, {"h1": h, "h2": np.eye(5, 3, dtype=np.float32)})
    assert both["srank_kumar"] == pytest.approx((1 + 2) / 2)
    with pytest.raises(ValueError, match="delta=1"):
        read_start(srank_kumar, {"h1": h}, delta=1.0)


def test_ranks_as_the_oracle():
    acts = layers(np.random.default_rng(3))
    found = {**read_start(srank_kumar, acts), **read_start(stable_rank, acts)}
    sranks = {n: oracle.srank_kumar(h) for n, h in acts.items()}
    stable = {n: more.stable_rank(h) for n, h in acts.items()}
    expected = {f"srank_kumar/{n}": float(r) for n, r in sranks.items()}
    expected |= {
        f"stable_rank/{n}": 100 * r / acts[n].shape[1] for n, r in stable.items()
    }
    expected["srank_kumar"] = np.mean(list(sranks.values()))
    expected["stable_rank"] = 100 * sum(stable.values()) / 16
    close(found, expected, rtol=1e-4)
    # The definition of srank has one more; the scales differ.
    absolute = oracle.abs_approximate_rank(acts["h1"])
    assert sranks["h1"] == absolute - 1


def test_kumar_counts_each_position_of_a_map():
    maps = np.zeros((6, 2, 1, 3), np.float32)  # 2 positions, 3 units
    maps[0, 0, 0, 0] = maps[1, 1, 0, 0] = 1.0  # unit 0 is alive at both positions
    maps[4, 1, 0, 1] = -2.0  # unit 1 at the second one only
    found = read_start(dead_units_kumar, {"h1": maps})
    assert found["dead_units_kumar"] == pytest.approx(3 / 6)
    assert more.dead_neurons_kumar(maps) == 3
    assert read_start(dead_units, {"h1": maps})["dead_units"] == pytest.approx(1 / 3)
    alive = {"h1": jnp.array([True, True, False])}
    found = read_start(dead_units_kumar, {"h1": maps}, alive)
    assert found["dead_units_kumar/h1"] == pytest.approx(1 / 4)
    # Kumar's rank takes positions as features: two vectors of length 6 here.
    assert read_start(srank_kumar, {"h1": maps})["srank_kumar"] == oracle.srank_kumar(
        maps.reshape(6, 6)
    )


def test_two_features_a_unit_are_two_columns():
    h = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    pair = np.stack([np.maximum(h, 0), np.maximum(-h, 0)], axis=1)  # [9, 2, 3]
    assert _ranks.features(pair).shape == (9, 6)
    assert _ranks.features(pair[:, None, None]).shape == (9, 6)
    assert _ranks.features(np.zeros((9, 4, 5, 3))).shape == (180, 3)
    rank = oracle.effective_rank(pair.reshape(9, 6))
    found = read_start(effective_rank, {"h1": pair})
    close(found["effective_rank"], 100 * rank / 6, rtol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_number(value):
    acts = {"h1": np.where(np.eye(6, 3) > 0, value, 0.0).astype(np.float32)}
    for module in (srank_kumar, stable_rank, dead_units_kumar):
        assert np.isnan(list(read_start(module, acts).values())).all(), module
    zeros = {"h1": np.zeros((6, 3), np.float32)}
    assert read_start(srank_kumar, zeros)["srank_kumar"] == 0.0
    assert read_start(stable_rank, zeros)["stable_rank"] == 0.0


PARAMS = {
    "h1": {"kernel": jnp.array([[1.0, -2.0], [2.0, -4.0]]), "bias": jnp.full(2, 3.0)},
    "head": {"kernel": jnp.array([[2.0], [-4.0]]), "bias": jnp.array([5.0])},
}


def test_weight_norms_and_rank_by_hand():
    net = mlp.make(tiny.SPEC, widths=(2,))
    found = read_start(weight_norms, {}, params=PARAMS, net=net)
    assert found["parameter_magnitude"] == pytest.approx((9 + 6 + 6 + 5) / 9)
    assert found["weight_l1"] == more.weight_l1(PARAMS) == 15.0
    assert found["weight_l2"] == pytest.approx(np.sqrt(25 + 20))
    assert more.weight_l2(PARAMS) == pytest.approx(np.sqrt(45))
    found = read_start(weight_rank, {}, params=PARAMS, net=net)  # ranks 1 of 2, 1 of 1
    assert found["weight_rank/h1"] == 0.5
    assert found["weight_rank"] == pytest.approx(2 / 3)
    assert more.weight_rank(PARAMS) == pytest.approx(2 / 3)


def test_what_is_not_in_use_counts_in_no_norm():
    net = mlp.make(tiny.SPEC, widths=(2,))
    alive = {"h1": jnp.array([True, False])}
    found = read_start(weight_norms, {}, alive, PARAMS, net=net)
    assert found["parameter_magnitude"] == pytest.approx((3 + 3 + 2 + 5) / 5)
    assert found["weight_l1"] == 5.0
    found = read_start(weight_rank, {}, alive, PARAMS, net=net)
    assert found["weight_rank"] == found["weight_rank/h1"] == 1.0
    edges = {"h1": jnp.array([[True, False], [False, True]])}
    found = read_start(weight_rank, {}, {}, PARAMS, edges, net)
    assert found["weight_rank/h1"] == 1.0
    found = read_start(weight_norms, {}, {}, PARAMS, edges, net)
    assert found["weight_l1"] == 1 + 4 + 6


def test_weight_rank_of_filters():
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    kernel[:, :, 0, 1] = 0.0  # rank 0
    kernel[:, :, 1, 2] = np.outer([1.0, 2.0, 3.0], [1.0, 0.0, -1.0])  # rank 1
    rank, largest = weight_rank.rank_and_largest(kernel, jnp.ones(kernel.shape, bool))
    assert (float(rank), int(largest)) == (pytest.approx((6 * 3 + 0 + 1) / 8), 3)
    assert more.weight_rank({"c": {"kernel": kernel}}) == pytest.approx(19 / 24)
    assert np.isnan(weight_rank.matrix_rank(jnp.full((3, 2), jnp.nan)))


# ---- every step


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


# ---- through the runner: 2 tasks of 4 steps, 2 segments a task, 3 of 8 held-out rows pad

STEPS = 4
SPEC = tiny.SPEC._replace(
    num_tasks=2, steps_per_task=STEPS, steps_per_segment=2, examples_per_task=16
)
DATA = tiny.batches(2 * STEPS)
HELD = tiny.batches(2, seed=5)  # minibatch i of the test split; the second has 1 row


def stream():
    def batch(data, task, i):
        step = jnp.minimum(i, STEPS - 1) + STEPS * task
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[step], DATA)

    def held_out(data, task, split, now, i):
        assert split == "test"
        made = jax.tree.map(lambda leaf: jnp.asarray(leaf)[jnp.minimum(i, 1)], HELD)
        real = jnp.arange(4) < jnp.array([4, 1, 0])[jnp.minimum(i, 2)]
        x = jnp.where(real[:, None], made.x + task, jnp.nan)  # each task its own inputs
        return made._replace(x=x, weight=real.astype(jnp.float32))

    return Stream(SPEC, lambda: (), lambda data, key, task: task, batch, held_out)


@pytest.fixture(scope="module")
def rows():
    net = mlp.make(SPEC, widths=(6, 5))
    metrics = [
        sample_plasticity.make(net, SPEC), update_norm.make(net, SPEC),
        zero_activations.make(net, SPEC), weight_norms.make(net, SPEC),
        weight_rank.make(net, SPEC),
        test_accuracy.make(net, SPEC, minibatches=5, segments=True),
    ]  # fmt: skip
    hyper = backprop.Hyper(step_size=jnp.float32(0.1))
    run = runner.make_run(stream(), net, backprop.make, metrics, frozenset())
    carry = run.init((), jnp.int32(0), hyper)

    @tiny.quick_jit
    def chunk(carry):
        return run.chunk((), jnp.int32(0), hyper, carry, 0, 4, 4)[1]

    found = jax.tree.map(np.asarray, chunk(carry))
    return oracle_mlp.cast(carry.learner.net.params), found


def cross_entropy(logits, y):
    return np.asarray(softmax_cross_entropy.per_example(jnp.asarray(logits), y))


def held_out_scores(params, task):
    x, y = HELD.x.reshape(8, -1)[:5] + task, HELD.y.reshape(8)[:5]
    logits = oracle_mlp.forward(params, x)[0]
    return np.mean(logits.argmax(1) == y), np.mean(cross_entropy(logits, y))


def test_a_run_is_measured_as_the_oracles_say(rows):
    params, found = rows
    for task in range(2):
        first = {name: float(column[2 * task]) for name, column in found.items()}
        last = {name: float(column[2 * task + 1]) for name, column in found.items()}
        close(first["weight_l2"], more.weight_l2(params), rtol=1e-5)
        close(
            first["parameter_magnitude"], oracle.parameter_magnitude(params), rtol=1e-5
        )
        close(first["weight_rank"], more.weight_rank(params), rtol=1e-5)
        plastic, norms, zeros = [], [], []
        for i in range(STEPS * task, STEPS * (task + 1)):
            x, y = DATA.x[i], DATA.y[i]
            before, acts, grads = oracle_mlp.loss_and_grads(params, x, y)
            params = oracle_mlp.map_params(lambda p, g: p - 0.1 * g, params, grads)
            after = np.mean(cross_entropy(oracle_mlp.forward(params, x)[0], y))
            plastic.append(oracle.sample_plasticity(float(before), float(after)))
            squares = [np.sum(leaf**2) for leaf in jax.tree.leaves(grads)]
            norms.append(0.1 * np.sqrt(sum(squares)))
            hidden = {name: acts[name] for name in ("h1", "h2")}
            zeros.append(oracle.zero_activation_fraction(hidden))
            if i % 2:
                column = found["segment_test_accuracy"]
                close(
                    float(column[i // 2]), held_out_scores(params, task)[0], rtol=1e-6
                )
        close(last["sample_plasticity"], np.mean(plastic), rtol=1e-3)
        close(last["update_norm"], np.mean(norms), rtol=1e-4)
        close(last["zero_activation_fraction"], np.mean(zeros), rtol=1e-5)
        accuracy, loss = held_out_scores(params, task)
        close(last["test_accuracy"], accuracy, rtol=1e-6)
        close(last["test_loss"], loss, rtol=1e-4)
        assert np.isnan([first["test_accuracy"], first["sample_plasticity"]]).all()
    assert 0 < found["sample_plasticity"][1] < 1


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


def test_test_accuracy_of_nothing_is_not_a_number():
    y, classes = jnp.zeros(2, jnp.int32), jnp.ones((2, 4), bool)
    empty = Batch(jnp.zeros((2, 1)), y, jnp.zeros(2), classes, y)

    def predict(learner, batch):
        return jnp.zeros((2, 4)), {}

    probe = Probe(tiny.clock(0), None, predict, None, lambda task, split, i: empty)
    metric = test_accuracy.make(None, SPEC)
    assert np.isnan(float(metric.read(None, probe)["test_accuracy"]))
    assert metric.read_segment(None, probe) == {}
    with pytest.raises(ValueError, match="minibatches=0"):
        test_accuracy.make(None, SPEC, minibatches=0)
