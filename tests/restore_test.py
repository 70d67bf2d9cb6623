"""Two rules of a benchmark: the step-size schedule and the best-validation restore."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from cl_bench import optimizers, runner
from cl_bench.methods import backprop
from cl_bench.methods._compose import compose
from cl_bench.testing import tiny_network, tiny_stream
from cl_bench.types import Metric

STEPS = 8
SCHEDULE = ((0.25, 0.1), (0.75, 0.01))


def with_rules(stream, **rules):
    return stream._replace(spec=stream.spec._replace(**rules))


def run(stream, make_method, metrics=(), hyper=None):
    """The final carry and the rows of one lane from seed 0."""
    net = tiny_network(stream.spec)
    made = runner.make_run(stream, net, make_method, metrics, frozenset())
    data = jax.tree.map(jnp.asarray, stream.load())
    hyper = backprop.Hyper(step_size=0.1) if hyper is None else hyper
    count = made.schedule.num_segments

    @jax.jit
    def whole(seed):
        carry = made.init(data, seed, hyper)
        return made.chunk(data, seed, hyper, carry, 0, count, count)

    return whole(jnp.uint32(0))


def sizes() -> Metric:
    """Sum over a task of the norm of updates divided by that of gradients."""

    def update(state, clock, batch, learner, signals):
        at = clock.step_in_task
        ratio = jnp.linalg.norm(signals.updates["head"]["bias"])
        return state.at[at].set(ratio / jnp.linalg.norm(signals.grads["head"]["bias"]))

    return Metric(
        init=lambda: jnp.zeros(STEPS),
        read_start=lambda probe: {},
        update=update,
        read_segment=lambda state, probe: {},
        read=lambda state, probe: {f"ratio/{i}": state[i] for i in range(STEPS)},
    )


def test_the_schedule_scales_every_tasks_updates_from_its_fractions_on():
    stream = tiny_stream(num_tasks=2, steps_per_task=STEPS, steps_per_segment=STEPS)
    stream = with_rules(stream, step_schedule=SCHEDULE)
    _, rows = run(stream, backprop.make, [sizes()])
    found = np.stack([rows[f"ratio/{i}"] for i in range(STEPS)], axis=1)
    expected = 0.1 * np.array([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
    chex.assert_trees_all_close(found, np.tile(expected, (2, 1)), rtol=1e-4)


def test_fractions_are_of_each_tasks_own_length():
    lengths = (4, 8)
    stream = tiny_stream(num_tasks=2, steps_per_task=lengths, steps_per_segment=4)
    stream = with_rules(stream, step_schedule=((0.5, 0.0),))
    _, rows = run(stream, backprop.make, [sizes()])
    moved = np.stack([rows[f"ratio/{i}"] for i in range(STEPS)], axis=1) > 0
    last_of_task = moved[[1, 3]]  # rows are segments, two a task
    np.testing.assert_array_equal(last_of_task[1], [True] * 4 + [False] * 4)


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Those of the optimiser."""


def marked(net, spec, hyper):
    """Backprop of step size 0 whose head bias counts the segments that have ended."""
    base = compose(net, spec, optimizers.make(hyper))

    def end_segment(key, clock, train, learner):
        head = learner.net.params["head"]
        head = {**head, "bias": head["bias"] + 1.0}
        params = {**learner.net.params, "head": head}
        return learner._replace(net=learner.net._replace(params=params))

    return base._replace(end_segment=end_segment)


def scoring(best_segment):
    """A stream whose validation score is highest for one head bias."""

    def score(logits, y):
        del y
        return jnp.where(jnp.abs(logits[:, 0] - best_segment) < 0.5, 0.9, 0.1)

    stream = tiny_stream(num_tasks=1, steps_per_task=4, steps_per_segment=1)
    loss = stream.spec.loss._replace(score=score)
    return with_rules(stream, loss=loss, restore_best=2, reset_head=True)


@pytest.mark.parametrize("best", [1, 3, 4])
def test_the_best_network_of_the_task_is_put_back(best):
    carry, _ = run(scoring(best), marked, hyper=Hyper(step_size=0.0))
    chex.assert_trees_all_close(
        carry.learner.net.params["head"]["bias"], jnp.full(4, float(best))
    )


def test_without_the_rule_the_last_network_stays():
    stream = with_rules(scoring(2), restore_best=0)
    carry, _ = run(stream, marked, hyper=Hyper(step_size=0.0))
    chex.assert_trees_all_close(
        carry.learner.net.params["head"]["bias"], jnp.full(4, 4.0)
    )
