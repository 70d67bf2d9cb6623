"""The networks and methods among the fixtures: each stresses a part of the contracts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import lane as lanes
from cl_bench import runner
from cl_bench.losses import mask_logits
from cl_bench.methods import backprop
from cl_bench.networks import mlp
from cl_bench.testing import tiny_network, tiny_stream
from cl_bench.types import Batch, Metric
from tests.fixtures import (
    batch_norm,
    boundary_blind,
    exact_fisher,
    grow_units,
    reservoir,
    slow_copy,
    sparse_edges,
    task_gates,
)
from tests.fixtures_setting import KEY, START, first_batches
from tests.tiny import at

BOTH = frozenset({"boundaries", "task_id"})


def run(stream, net, method, segments, metrics=(), hyper=None, needs=None):
    """The carry and the rows after so many segments of one lane."""
    needs = method.NEEDS if needs is None else needs
    hyper = method.Hyper() if hyper is None else hyper
    made = runner.make_run(stream, net, method.make, metrics, needs)

    @jax.jit
    def lane(data, seed):
        carry = made.init(data, seed, hyper)
        return made.chunk(data, seed, hyper, carry, 0, segments, segments)

    return lane(stream.load(), jnp.uint32(0))


def test_batch_norm_averages_the_statistics_of_its_batches():
    stream = tiny_stream()
    net = batch_norm.make(stream.spec, widths=(4,), momentum=0.9)
    method = backprop.make(net, stream.spec, backprop.Hyper())
    learner = method.init(KEY)
    batch = at(first_batches(stream, 1), 0)
    after, _ = method.step(KEY, START, batch, learner)
    z = np.asarray(batch.x @ learner.net.params["h1"]["kernel"])
    expected = {"mean": 0.1 * z.mean(0), "var": 0.9 + 0.1 * z.var(0)}
    chex.assert_trees_all_close(after.net.stats["h1"], expected, atol=1e-6)


def test_gates_of_a_task_are_its_own():
    stream = tiny_stream(BOTH)
    net = tiny_network(stream.spec)
    method = task_gates.make(net, stream.spec, task_gates.Hyper())
    learner = method.init(KEY)
    batch = at(first_batches(stream, 1), 0)
    later = batch._replace(task=batch.task + 1)
    one, other = (method.predict(learner, b)[0] for b in (batch, later))
    assert np.all(one[batch.classes] != other[batch.classes])
    mixed = batch._replace(task=jnp.arange(4) % 2)
    expected = jnp.where(mixed.task[:, None] == 0, one, other)
    chex.assert_trees_all_close(method.predict(learner, mixed)[0], expected, atol=1e-6)


def test_units_that_an_earlier_task_used_are_protected():
    stream = tiny_stream(BOTH)
    net = tiny_network(stream.spec)
    method = task_gates.make(net, stream.spec, task_gates.Hyper(step_size=0.1))
    learner = method.init(KEY)
    used = {"h1": jnp.ones(7), "h2": jnp.zeros(5)}
    learner = learner._replace(extra={**learner.extra, "used": used})
    batch = at(first_batches(stream, 1), 0)
    after, _ = method.step(KEY, START, batch, learner)
    chex.assert_trees_all_equal(after.net.params["h1"], learner.net.params["h1"])
    assert np.any(
        after.net.params["h2"]["kernel"] != learner.net.params["h2"]["kernel"]
    )
    closed = method.end_task(KEY, START, lambda i: batch, after).extra["used"]
    assert np.all(closed["h2"] > 0) and np.all(closed["h1"] == 1)


def brute_force_fisher(net, state, batch):
    """E over examples and over the model's own labels of the squared gradient."""

    def log_p(params, x, classes, label):
        at_params = state._replace(params=params)
        logits = net.apply(at_params, x[None], train=False, key=None)[0][0]
        return jax.nn.log_softmax(mask_logits(logits, classes))[label]

    def of_example(x, classes):
        labels = jnp.arange(len(classes))
        grads = jax.vmap(jax.grad(log_p), (None, None, None, 0))(
            state.params, x, classes, labels
        )
        logs = jax.vmap(log_p, (None, None, None, 0))(state.params, x, classes, labels)
        return jax.tree.map(
            lambda g: jnp.tensordot(jnp.exp(logs), jnp.square(g), 1), grads
        )

    each = jax.vmap(of_example)(batch.x, batch.classes)
    return jax.tree.map(lambda f: f.mean(axis=0), each)


def test_the_fisher_is_exact():
    stream = tiny_stream(BOTH)
    net = tiny_network(stream.spec)
    carry, _ = run(stream, net, exact_fisher, segments=2)  # one task, and its end
    kept = carry.learner.extra["kept"]
    batches = first_batches_of_run(stream, 6)  # 24 examples, one pass
    whole = jax.tree.map(lambda leaf: leaf.reshape(24, *leaf.shape[2:]), batches)
    expected = brute_force_fisher(net, kept["anchor"], whole)
    chex.assert_trees_all_close(kept["fisher"], expected, atol=1e-6, rtol=1e-4)
    assert max(float(f.max()) for f in jax.tree.leaves(expected)) > 1e-3
    chex.assert_trees_all_equal(kept["anchor"], carry.learner.net)


def first_batches_of_run(stream, count):
    """As the runner of seed 0 draws its first task."""
    data = jax.tree.map(jnp.asarray, stream.load())
    state = stream.start(data, jax.random.fold_in(KEY, lanes.STREAM), jnp.int32(0))
    return jax.vmap(lambda i: stream.batch(data, state, i))(jnp.arange(count))


def test_a_reservoir_holds_every_example_equally_often():
    """After n examples each is there with probability M / n, and none twice."""
    steps, seeds, capacity = 15, 400, 12
    spec = tiny_stream().spec
    net = mlp.make(spec, widths=())
    hyper = reservoir.Hyper(step_size=0.0, capacity=capacity)
    method = reservoir.make(net, spec, hyper)
    number = jnp.arange(steps * 4).reshape(steps, 4)
    batches = Batch(
        x=jnp.tile(number[..., None].astype(jnp.float32), (1, 1, 6)),
        y=jnp.zeros((steps, 4), jnp.int32),
        weight=jnp.ones((steps, 4)),
        classes=jnp.ones((steps, 4, 4), bool),
        task=number,
    )

    def one_run(key):
        def body(learner, inputs):
            i, batch = inputs
            step_key = jax.random.fold_in(key, i)
            return method.step(step_key, START, batch, learner)[0], None

        learner = method.init(key)
        return jax.lax.scan(body, learner, (jnp.arange(steps), batches))[0].extra

    kept = jax.jit(jax.vmap(one_run))(jax.random.split(KEY, seeds))
    memory = jax.tree.map(np.asarray, kept["memory"])
    assert np.all(kept["seen"] == 60) and memory.task.shape == (seeds, capacity)
    chex.assert_trees_all_equal(memory.x[..., 0].astype(int), memory.task)
    assert all(len(set(row)) == capacity for row in memory.task)
    share = np.bincount(memory.task.ravel(), minlength=60) / seeds
    p = capacity / 60
    np.testing.assert_allclose(share, p, atol=5 * np.sqrt(p * (1 - p) / seeds))


def test_replay_learns_from_the_reservoir():
    stream = tiny_stream()
    net = tiny_network(stream.spec)
    batches = first_batches(stream, 2)
    learners = []
    for replay in (0.0, 1.0):
        method = reservoir.make(net, stream.spec, reservoir.Hyper(replay=replay))
        learner = method.init(KEY)
        for i in range(2):
            learner, _ = method.step(KEY, START, at(batches, i), learner)
        learners.append(learner.net.params)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(*learners, atol=1e-6)


def test_units_grow_inside_a_task():
    stream = tiny_stream(num_tasks=1, steps_per_task=20, steps_per_segment=5)
    net = mlp.make(stream.spec, widths=(3, 2), spare_units=3)
    sizes = []
    for segments in (1, 2, 4):
        learner = run(stream, net, grow_units, segments)[0].learner
        alive = {name: np.asarray(mask) for name, mask in learner.net.alive.items()}
        sizes.append({name: int(mask.sum()) for name, mask in alive.items()})
        kernel = np.abs(learner.net.params["h1"]["kernel"])
        assert np.all(kernel[:, alive["h1"]].sum(0) > 0)
        assert not np.any(kernel[:, ~alive["h1"]])
    assert sizes == [{"h1": 4, "h2": 3}, {"h1": 5, "h2": 4}, {"h1": 6, "h2": 5}]


def seen_task_metric():
    """The largest task number that reaches `predict` from a metric's probe."""

    def read(state, probe):
        acts = probe.predict(probe.learner, probe.train(jnp.int32(0)))[1]
        return {"train": acts["batch_task"].max(), "true": probe.clock.task}

    return Metric(
        init=lambda: (),
        read_start=lambda probe: {},
        update=lambda state, *rest: state,
        read_segment=lambda state, probe: {},
        read=read,
    )


@pytest.mark.parametrize("needs", [frozenset(), BOTH], ids=["blind", "knowing"])
def test_a_method_learns_of_boundaries_only_what_it_needs(needs):
    stream = tiny_stream(BOTH, num_tasks=3, steps_per_task=4, steps_per_segment=2)
    net = tiny_network(stream.spec)
    metrics = [seen_task_metric()]
    carry, rows = run(stream, net, boundary_blind, 6, metrics, needs=needs)
    seen = {name: int(v) for name, v in carry.learner.extra["seen"].items()}
    knowing = {"clock_task": 2, "batch_task": 2, "gap": 8, "called": 6}
    assert seen == (knowing if needs else dict.fromkeys(knowing, 0))
    ends = {name: np.asarray(row)[1::2].tolist() for name, row in rows.items()}
    assert ends["true"] == [0, 1, 2]
    assert ends["train"] == ([0, 1, 2] if needs else [0, 0, 0])


def test_forbidden_edges_stay_zero_in_every_copy_after_every_phase():
    """The noise of `slow_copy` falls everywhere; the runner takes it off again."""
    stream = tiny_stream(num_tasks=1, steps_per_task=6, steps_per_segment=3)
    net = sparse_edges.make(stream.spec)
    made = runner.make_run(stream, net, slow_copy.make, (), frozenset())
    data, seed, hyper = stream.load(), jnp.uint32(0), slow_copy.Hyper()
    carry = jax.jit(made.init)(data, seed, hyper)
    learners = {
        "init": carry.learner,
        "step": jax.jit(made.step)(data, seed, hyper, carry),
        "end_segment": run(stream, net, slow_copy, 2)[0].learner,
    }
    for phase, learner in learners.items():
        for state in (learner.net, learner.extra["copy"]):
            for name, allowed in learner.net.edges.items():
                kernel = np.asarray(state.params[name]["kernel"])
                assert not np.any(kernel[~allowed]), phase
                assert np.all(kernel[allowed]), phase
