"""The further metrics of plasticity through the runner, against the numpy oracles."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import registry, runner
from cl_bench.losses import softmax_cross_entropy
from cl_bench.methods import backprop
from cl_bench.metrics import (
    sample_plasticity,
    update_norm,
    weight_norms,
    weight_rank,
    zero_activations,
)
from cl_bench.networks import mlp
from cl_bench.types import Batch, Probe, Stream
from tests import tiny
from tests.reference import metrics as oracle
from tests.reference import mlp as oracle_mlp
from tests.reference import plasticity_metrics as more

close = chex.assert_trees_all_close
test_accuracy = registry.load(
    "metrics", "test_accuracy"
)  # a test_* name misleads pytest

# 2 tasks of 4 steps, 2 segments a task, 3 of 8 held-out rows pad.
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
