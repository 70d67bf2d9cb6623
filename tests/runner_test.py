"""The order of phases, the clock in each, and what the numbers are: one lane."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import lane as lanes
from cl_bench import registry, runner
from cl_bench.losses import softmax_cross_entropy, weighted_mean
from cl_bench.methods import backprop, l2, shrink_perturb
from cl_bench.testing import tiny_network, tiny_stream
from tests.fixtures import recorder, unequal_tasks
from tests.fixtures.recorder import (
    END_SEGMENT,
    END_TASK,
    RESET,
    START_TASK,
    STEP,
)

BOUNDARIES = frozenset({"boundaries"})


def compiled(stream, module, metrics=(), hyper=None, room=None):
    """(init, chunk) of one lane; chunk takes (carry, first, count)."""
    net = tiny_network(stream.spec)
    run = runner.make_run(stream, net, module.make, metrics, module.NEEDS)
    hyper = module.Hyper() if hyper is None else hyper
    data = jax.tree.map(jnp.asarray, stream.load())
    room = run.schedule.num_segments if room is None else room

    def init(seed):
        return run.init(data, jnp.uint32(seed), hyper)

    def chunk(carry, first, count, seed=0):
        return run.chunk(data, jnp.uint32(seed), hyper, carry, first, count, room)

    return jax.jit(init), jax.jit(chunk)


@functools.cache
def recorded(stream):
    """The log and the rows of a whole run of the recorder."""
    init, chunk = compiled(stream, recorder, [recorder.metric()])
    segments = runner.schedule(stream.spec).num_segments
    carry, rows = chunk(init(0), 0, segments)
    extra = carry.learner.extra
    log = np.asarray(extra["log"])[: int(extra["next"])].tolist()
    return log, {name: np.asarray(row) for name, row in rows.items()}


def small(**options):
    return tiny_stream(
        BOUNDARIES, num_tasks=2, steps_per_task=4, steps_per_segment=2, **options
    )


def test_the_phases_of_a_task_in_order():
    log, _ = recorded(small(reset_head=True))
    assert log == [  # phase, step, task, step_in_task
        [RESET, 0, 0, 0],
        [START_TASK, 0, 0, 0],
        [STEP, 0, 0, 0],
        [STEP, 1, 0, 1],
        [END_SEGMENT, 2, 0, 2],
        [STEP, 2, 0, 2],
        [STEP, 3, 0, 3],
        [END_SEGMENT, 4, 0, 4],
        [END_TASK, 4, 0, 4],
        [RESET, 4, 1, 0],
        [START_TASK, 4, 1, 0],
        [STEP, 4, 1, 0],
        [STEP, 5, 1, 1],
        [END_SEGMENT, 6, 1, 2],
        [STEP, 6, 1, 2],
        [STEP, 7, 1, 3],
        [END_SEGMENT, 8, 1, 4],
        [END_TASK, 8, 1, 4],
    ]


def test_the_head_is_reset_only_where_the_benchmark_says_so():
    phases = [line[0] for line in recorded(small())[0]]
    assert RESET not in phases and phases.count(START_TASK) == 2


def test_metrics_are_read_after_the_method_at_their_own_times():
    _, rows = recorded(small())
    nan = np.nan
    expected = {
        # After start_task; before end_segment's successor; after end_task.
        "start/lines": [1, nan, 9, nan],
        "start/step": [0, nan, 4, nan],
        "start/step_in_task": [0, nan, 0, nan],
        "segment/lines": [4, 7, 12, 15],
        "segment/updates": [2, 4, 2, 4],
        "segment/step": [2, 4, 6, 8],
        "segment/task": [0, 0, 1, 1],
        "read/lines": [nan, 8, nan, 16],
        "read/updates": [nan, 4, nan, 4],
        "read/step_in_task": [nan, 4, nan, 4],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(rows[name], values, err_msg=name)


def test_unequal_tasks_skip_what_is_only_padding():
    """7, 12 and 5 steps in segments of 4: a segment may be short, or not there."""
    log, rows = recorded(unequal_tasks.make())
    steps = [line[1:] for line in log if line[0] == STEP]
    lengths = (7, 12, 5)
    expected = [[t, i] for t, length in enumerate(lengths) for i in range(length)]
    assert steps == [[n, *where] for n, where in enumerate(expected)]
    ends = [line[1:] for line in log if line[0] == END_SEGMENT]
    assert ends == [
        [4, 0, 4], [7, 0, 7],
        [11, 1, 4], [15, 1, 8], [19, 1, 12],
        [23, 2, 4], [24, 2, 5],
    ]  # fmt: skip
    assert [line[1:] for line in log if line[0] == END_TASK] == [
        [7, 0, 7], [19, 1, 12], [24, 2, 5],
    ]  # fmt: skip
    nan = np.nan
    np.testing.assert_array_equal(
        rows["segment/updates"], [4, 7, nan, 4, 8, 12, 4, 5, nan]
    )
    np.testing.assert_array_equal(
        rows["read/updates"], [nan, nan, 7, nan, nan, 12, nan, nan, 5]
    )


def test_a_run_is_the_plain_loop_that_the_design_describes():
    """The same keys, batches and updates, written without the runner."""
    stream = small()
    spec, net = stream.spec, tiny_network(stream.spec)
    accuracy = registry.load("metrics", "online_accuracy").make(net, spec)
    init, chunk = compiled(stream, backprop, [accuracy])
    carry, rows = chunk(init(5), 0, 4, 5)
    data = jax.tree.map(jnp.asarray, stream.load())
    key = jax.random.fold_in(jax.random.key(lanes.ROOT_SEED, impl="threefry2x32"), 5)
    params = net.init(jax.random.fold_in(key, lanes.INIT)).params
    scores = []
    for step in range(8):
        task = stream.start(
            data, jax.random.fold_in(key, lanes.STREAM), jnp.int32(step // 4)
        )
        batch = stream.batch(data, task, jnp.int32(step % 4))

        def loss(params, batch=batch):
            h = batch.x
            for name in ("h1", "h2"):
                h = jax.nn.relu(h @ params[name]["kernel"] + params[name]["bias"])
            logits = h @ params["head"]["kernel"] + params["head"]["bias"]
            logits = jnp.where(batch.classes, logits, -jnp.inf)
            each = -jax.nn.log_softmax(logits)[jnp.arange(4), batch.y]
            return each.mean(), jnp.mean(jnp.argmax(logits, -1) == batch.y)

        grads, score = jax.grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 0.003 * g, params, grads)
        scores.append(float(score))
    chex.assert_trees_all_close(carry.learner.net.params, params, atol=1e-6)
    np.testing.assert_allclose(
        np.asarray(rows["online_accuracy"]),
        np.array([np.nan, np.mean(scores[:4]), np.nan, np.mean(scores[4:])]),
        atol=1e-6,
    )


def test_every_method_gets_the_same_tasks_and_first_weights():
    first, other = (compiled(small(), module)[0](3) for module in (backprop, l2))
    chex.assert_trees_all_equal(first.learner.net, other.learner.net)
    chex.assert_trees_all_equal(first.task_state, other.task_state)
    another = compiled(small(), backprop)[0](4)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(first.learner.net, another.learner.net)


def test_rows_past_the_count_are_not_measured():
    _, chunk = compiled(small(), backprop, room=6)
    init, _ = compiled(small(), backprop)
    _, rows = chunk(init(0), 1, 2)
    np.testing.assert_array_equal(rows["diverged"], [0, 0] + [np.nan] * 4)


def test_a_lane_that_diverges_says_so_from_then_on():
    hyper = backprop.Hyper(step_size=1e30)
    init, chunk = compiled(small(), backprop, hyper=hyper)
    carry, rows = chunk(init(0), 0, 4)
    np.testing.assert_array_equal(rows["diverged"], [1, 1, 1, 1])
    assert not np.isfinite(carry.learner.net.params["head"]["bias"]).all()


def test_two_metrics_with_one_name_are_refused():
    stream = small()
    accuracy = registry.load("metrics", "online_accuracy")
    made = accuracy.make(tiny_network(stream.spec), stream.spec)
    init, chunk = compiled(stream, backprop, [made, made])
    with pytest.raises(ValueError, match="both record online_accuracy, online_loss"):
        jax.eval_shape(chunk, jax.eval_shape(init, 0), 0, 1)


def test_the_unscanned_step_is_a_step():
    """What the cost record counts leaves a learner of the same shapes, trained once."""
    stream = small()
    net = tiny_network(stream.spec)
    run = runner.make_run(stream, net, backprop.make, (), frozenset())
    data, hyper = stream.load(), backprop.Hyper()
    seed = jnp.uint32(0)
    carry = run.init(data, seed, hyper)
    after = jax.jit(run.step)(data, seed, hyper, carry)
    chex.assert_trees_all_equal_shapes_and_dtypes(carry.learner, after)
    batch = stream.batch(
        jax.tree.map(jnp.asarray, data), carry.task_state, jnp.int32(0)
    )

    def loss(params):
        logits = net.apply(
            carry.learner.net._replace(params=params), batch.x, train=True, key=None
        )[0]
        logits = jnp.where(batch.classes, logits, -1e9)
        each = softmax_cross_entropy.per_example(logits, batch.y)
        return weighted_mean(each, batch.weight)

    expected = jax.tree.map(
        lambda p, g: p - 0.003 * g,
        carry.learner.net.params,
        jax.grad(loss)(carry.learner.net.params),
    )
    chex.assert_trees_all_close(after.net.params, expected, atol=1e-6)


def test_every_step_draws_its_own_noise():
    """Steps of pure noise: no two alike, neither in a run nor between two seeds."""
    stream = tiny_stream(num_tasks=1, steps_per_task=3, steps_per_segment=1)
    hyper = shrink_perturb.Hyper(step_size=0.0, shrink=0.0, noise_std=1.0)
    init, chunk = compiled(stream, shrink_perturb, hyper=hyper)
    moves = []
    for seed in (0, 1):
        carry = init(seed)
        for segment in range(3):
            before = np.asarray(carry.learner.net.params["h1"]["kernel"])
            carry, _ = chunk(carry, segment, 1, seed)
            moves.append(carry.learner.net.params["h1"]["kernel"] - before)
    assert len({np.round(move[0, 0], 3).item() for move in moves}) == 6
    assert 0.8 < np.std(moves) < 1.2
