"""The limits of the rehearsal methods, and the memories that they refuse."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import runner
from cl_bench.losses import squared_error
from cl_bench.methods import (
    _replay,
    agem,
    backprop,
    der,
    der_plus_plus,
    experience_replay,
    gem,
    naive_rehearsal,
)
from cl_bench.metrics import accuracy_matrix
from cl_bench.networks import mlp
from cl_bench.streams import mixed, split_classes, transformed
from cl_bench.types import Clock
from tests import tiny
from tests.reference import mlp as oracle_mlp

NET = mlp.make(tiny.SPEC, widths=(8, 6))


def same_batch(steps):
    """One minibatch again and again: no task can conflict with another."""
    one = tiny.batches(1)
    return jax.tree.map(lambda a: np.tile(a, (steps,) + (1,) * (a.ndim - 1)), one)


@pytest.mark.parametrize(
    ("method", "hyper"),
    [
        (agem, agem.Hyper(memory_per_task=4, reference_batch_size=50)),
        (gem, gem.Hyper(memory_per_task=4)),
    ],
)
def test_without_conflict_it_is_fine_tuning(method, hyper):
    data = jax.tree.map(jnp.asarray, same_batch(20))

    def last(made):
        def body(learner, inputs):
            i, batch = inputs
            clock = Clock(i, i // 10, i % 10)
            learner, _ = made.step(tiny.step_key(i), clock, batch, learner)
            return learner, learner.net.params

        steps = jnp.arange(20, dtype=jnp.int32)
        run = tiny.quick_jit(
            lambda: jax.lax.scan(body, made.init(tiny.KEY), (steps, data))
        )
        return run()[1]

    plain = last(backprop.make(NET, tiny.SPEC, backprop.Hyper()))
    chex.assert_trees_all_close(
        last(method.make(NET, tiny.SPEC, hyper)), plain, atol=1e-7
    )


def test_a_memory_of_everything_trains_on_everything():
    data = tiny.batches(11)
    hyper = experience_replay.Hyper(capacity=60, replay_batch_size=40)
    method = experience_replay.make(NET, tiny.SPEC, hyper)
    learners = tiny.run(method, tiny.at(data, slice(10)))[1]
    learner = tiny.at(jax.tree.map(jnp.asarray, learners), 9)
    step = lambda key: method.step(key, tiny.clock(10), tiny.at(data, 10), learner)[1]
    keys = jax.random.split(tiny.KEY, 500)
    mean = jax.tree.map(
        lambda g: np.asarray(g).mean(0), tiny.quick_jit(jax.vmap(step))(keys).grads
    )
    x, y = data.x.reshape(-1, tiny.INPUTS), data.y.ravel()
    weight = np.r_[np.full(40, 40 / 40), np.ones(4)]  # 40 replayed of 40 stored
    expected = oracle_mlp.loss_and_grads(
        learner.net.params, x, y, example_weight=weight
    )[2]
    norm = lambda tree: np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(tree)))
    miss = lambda tree: norm(jax.tree.map(lambda a, b: a - b, tree, expected))
    own = oracle_mlp.loss_and_grads(learner.net.params, x[40:], y[40:])[2]
    assert miss(mean) < 0.05 * norm(expected) < 0.1 * miss(own)


EACH = 60  # examples of a task


def after_three_tasks(method, hyper, training="sequential"):
    """Last parameters [2 seeds, P] and accuracies on the 3 tasks [2, 3]; convex."""
    stream = transformed.make(
        num_tasks=3, examples=EACH, batch_size=30, steps_per_task=400, training=training
    )
    net = mlp.make(stream.spec, widths=())
    metric = accuracy_matrix.make(net, stream.spec, minibatches=3)
    run = runner.make_run(stream, net, method.make, [metric], method.NEEDS)
    data = jax.tree.map(jnp.asarray, stream.load())

    def lane(seed):
        return run.chunk(data, seed, hyper, run.init(data, seed, hyper), 0, 3, 3)

    carry, rows = tiny.quick_jit(jax.vmap(lane))(jnp.arange(2, dtype=jnp.uint32))
    leaves = jax.tree.leaves(carry.learner.net.params)
    params = np.concatenate([np.reshape(leaf, (2, -1)) for leaf in leaves], axis=1)
    scores = [rows[f"accuracy_on/{task}"][:, 2] for task in range(3)]
    return params, np.stack(scores, axis=1)


def test_unlimited_memory_by_task_approaches_cumulative_training():
    """Weighting 'by_task' has the limit: its task has the share 1 / (t + 1) of the loss.

    The default 'union' has not, whatever its memory: with the stream's own batch size
    the current task keeps half of the loss, as with 'half', and another optimum.
    """
    sgd = {"step_size": 0.05}
    cumulative, reached = after_three_tasks(
        backprop, backprop.Hyper(**sgd), training="cumulative"
    )

    def away(method, **settings):
        params, scores = after_three_tasks(method, method.Hyper(**sgd, **settings))
        distance = np.linalg.norm(params - cumulative, axis=1).max()
        return distance, np.abs(scores - reached).max()

    everything = partial(away, naive_rehearsal, capacity=3 * EACH)
    near, points = everything(weighting="by_task", replay_batch_size=60)
    plain, plain_points = away(backprop)
    halves = everything()[0]
    assert near < 0.1 * plain and near < 0.25 * halves, (near, halves, plain)
    assert points < 0.03 and plain_points > 0.15, (points, plain_points)


def test_der_plus_plus_without_labels_is_der():
    options = {"alpha": 0.4, "capacity": 9}
    plus = der_plus_plus.make(NET, tiny.SPEC, der_plus_plus.Hyper(**options, beta=0.0))
    plain = der.make(NET, tiny.SPEC, der.Hyper(**options))
    data = tiny.batches(12)
    first, second = (tiny.run(made, data)[1].net for made in (plus, plain))
    chex.assert_trees_all_close(first, second, atol=1e-6)


def test_logits_of_outputs_out_of_play_are_not_held_on_to():
    then = jnp.array([[1.0, -1e9, 3.0]])
    now, classes = jnp.array([[0.0, 5.0, 1.0]]), jnp.array([[True, False, True]])
    for normalise, expected in (("sum", 5.0), ("mean", 2.5)):
        found = der.squared_distance(then, now, classes, normalise)
        chex.assert_trees_all_close(found, np.array([expected]))


@pytest.mark.parametrize("weighting", ["union", "half", "by_task"])
def test_nothing_to_replay_has_no_share(weighting):
    batch = tiny.at(tiny.batches(1), 0)
    none = batch._replace(weight=np.zeros(4))
    share = partial(_replay.share, weighting)
    assert share(1.0, batch, none, 3) == 0 == share(0.0, batch, batch, 3)
    assert share(1.0, batch, batch, 3) == {"by_task": 0.75}.get(weighting, 0.5)


@pytest.mark.parametrize(
    ("stream", "classes"),
    [
        (split_classes.make(scenario="domain"), 10),
        (split_classes.make(scenario="domain", num_tasks=3), 6),
        (split_classes.make(scenario="task", single_head=True), 10),
        (mixed.make(scenario="domain"), 20),
        (transformed.make(num_tasks=3), 10),
    ],
)
def test_classes_are_those_of_the_data_not_the_outputs(stream, classes):
    net = mlp.make(stream.spec, widths=(3,))
    for method in (experience_replay, naive_rehearsal, der):
        method.make(net, stream.spec, method.Hyper(capacity=classes))
        with pytest.raises(ValueError, match=f"{classes}: it has to hold {classes}"):
            method.make(net, stream.spec, method.Hyper(capacity=classes - 1))


REAL = tiny.SPEC._replace(loss=squared_error)


@pytest.mark.parametrize(
    ("method", "settings", "spec", "message"),
    [
        (experience_replay, {"policy": "class_balanced", "capacity": 3}, tiny.SPEC,
         "classes, 4: it has to hold 4"),
        (der, {"capacity": 3}, tiny.SPEC, "classes, 4: it has to hold 4"),
        (gem, {"memory_per_task": 1}, tiny.SPEC, "classes, 4: it has to hold 4"),
        (experience_replay, {"policy": "class_balanced"}, REAL, "needs labels"),
        (experience_replay, {"capacity": 0}, tiny.SPEC, "at least 1 example"),
        (experience_replay, {"capacity": 2**30}, tiny.SPEC, "at most 134217728"),
        (experience_replay, {"policy": "ring"}, tiny.SPEC, "boundaries: agem, gem"),
        (experience_replay, {"weighting": "by_task"}, tiny.SPEC, "naive_rehearsal"),
        (experience_replay, {"replay_batch_size": 0}, tiny.SPEC, "is backprop"),
        (naive_rehearsal, {"capacity": 9}, tiny.SPEC._replace(num_tasks=20),
         "20 tasks: at least 20"),
        (naive_rehearsal, {"weighting": "best"}, tiny.SPEC, "union, half, by_task"),
        (der, {"normalise": "max"}, tiny.SPEC, "none of mean, sum"),
        (der_plus_plus, {"capacity": 0}, tiny.SPEC, "at least 1 example"),
        (agem, {"capacity": 400}, tiny.SPEC, "memory_per_task=200 fits"),
        (agem, {"reference_batch_size": 0}, tiny.SPEC, "at least 1 example"),
        (gem, {"capacity": 1}, tiny.SPEC, "need capacity=2 at least"),
        (gem, {"sharing": "so_far", "capacity": 0}, tiny.SPEC, "at least 1 example"),
        (gem, {"sharing": "fair"}, tiny.SPEC, "none of fixed, so_far"),
        (gem, {"sharing": "so_far", "capacity": 9},
         tiny.SPEC._replace(num_tasks=20), "20 tasks: at least 20"),
        (gem, {"memory_per_task": 0}, tiny.SPEC, "at least 1 example"),
        (gem, {"memory_per_task": 2**28}, tiny.SPEC, "does not fit in 8 GiB"),
    ],
)  # fmt: skip
def test_a_memory_that_cannot_work_is_refused(method, settings, spec, message):
    net = mlp.make(spec, widths=(3,))
    with pytest.raises(ValueError, match=message):
        method.make(net, spec, method.Hyper(**settings))
