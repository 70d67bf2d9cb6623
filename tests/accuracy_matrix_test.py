"""The accuracy matrix: every row against a plain evaluation of the network then."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import lane, runner
from cl_bench.methods import backprop
from cl_bench.metrics import _held_out, accuracy_matrix, anytime_accuracy
from cl_bench.networks import mlp
from cl_bench.streams import split_classes

SMALL = {"class_order": "natural", "num_tasks": 3, "batch_size": 20, "epochs": 2}


def records(scenario, **options):
    """The rows of one run and the learners at its segments' ends."""
    stream = split_classes.make(scenario=scenario, **SMALL, **options)
    net = mlp.make(stream.spec, widths=(16,))
    hyper = backprop.Hyper(step_size=0.1)

    def method(net, spec, hyper):
        return backprop.make(net, spec, hyper)

    metrics = [m.make(net, stream.spec) for m in (accuracy_matrix, anytime_accuracy)]
    run = runner.make_run(stream, net, method, metrics, frozenset())
    data = jax.tree.map(jnp.asarray, stream.load())
    chunk = jax.jit(run.chunk, static_argnums=6)
    carry, rows, learners = run.init(data, jnp.int32(0), hyper), [], []
    learners.append(carry.learner)
    for segment in range(run.schedule.num_segments):
        args = data, jnp.int32(0), hyper, carry, jnp.int32(segment), jnp.int32(1), 1
        carry, row = chunk(*args)
        rows.append({name: float(value[0]) for name, value in row.items()})
        learners.append(carry.learner)
    return stream, backprop.make(net, stream.spec, hyper), data, rows, learners


def plain_accuracy(stream, method, data, learner, task, now):
    """Correct answers in all test images of a task, counted one minibatch at a time."""
    key = jax.random.fold_in(lane.run_key(0), lane.STREAM)
    state = stream.start(data, key, jnp.int32(task))
    right = total = 0
    for i in range(4):
        batch = stream.held_out(data, state, "test", jnp.int32(now), jnp.int32(i))
        logits = np.asarray(method.predict(learner, batch)[0])
        weight = np.asarray(batch.weight) > 0
        right += (logits.argmax(1) == np.asarray(batch.y))[weight].sum()
        total += weight.sum()
    return right / total


def test_rows_are_what_the_network_then_scores_on_every_task():
    stream, method, data, rows, learners = records("domain")
    for i, row in enumerate(rows):
        for j in range(3):
            args = stream, method, data, learners[i + 1], j, i
            assert row[f"accuracy_on/{j}"] == pytest.approx(plain_accuracy(*args))
            initial = row[f"initial_accuracy_on/{j}"]
            if i:
                assert np.isnan(initial)
            else:
                before = plain_accuracy(stream, method, data, learners[0], j, 0)
                assert initial == pytest.approx(before)
    assert rows[0]["accuracy_on/0"] > 0.9  # it did learn


def test_classes_to_come_are_unknown_and_not_wrong():
    for options in ({}, {"active": "seen"}, {"offers": ()}):
        *_, rows, _ = records("class", **options)
        matrix = np.array([[row[f"accuracy_on/{j}"] for j in range(3)] for row in rows])
        assert np.isnan(matrix[np.triu_indices(3, 1)]).all()
        assert np.isfinite(matrix[np.tril_indices(3)]).all()
        assert matrix[2, 0] < 0.2  # and forgotten ones are wrong


def test_anytime_accuracy_of_the_tasks_so_far_at_every_segment():
    stream, method, data, rows, learners = records("domain", steps_per_segment=6)
    assert len(rows) == 3 * stream.spec.steps_per_task // 6
    per_task = stream.spec.steps_per_task // 6
    for segment in (0, per_task + 1):
        now = segment // per_task
        args = stream, method, data, learners[segment + 1], 0, now
        found = rows[segment]["anytime_accuracy_on/0"]
        assert found == pytest.approx(plain_accuracy(*args))
        assert np.isnan(rows[segment][f"anytime_accuracy_on/{now + 1}"])


def test_which_tasks_of_a_long_stream_are_evaluated():
    assert _held_out.evaluated_tasks(50) == tuple(range(50))
    many = _held_out.evaluated_tasks(800)
    assert many[0] == 0 and many[-1] == 799 and 30 <= len(many) <= 50


@pytest.mark.parametrize("module", [accuracy_matrix, anytime_accuracy])
def test_no_minibatches_are_refused(module):
    spec = split_classes.make().spec
    with pytest.raises(ValueError, match="at least 1"):
        module.make(mlp.make(spec), spec, minibatches=0)
