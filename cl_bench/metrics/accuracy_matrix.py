"""Accuracy matrix: test accuracy on every task after each task."""

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.metrics import _held_out
from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, Probe, StreamSpec


def make(net: Network, spec: StreamSpec, *, minibatches: int = 100) -> Metric:
    """Row i of R at the end of task i: `accuracy_on/<j>` is R[i, j], in [0, 1].

    After the method's end_task, on all tasks j, also those to come (log-spaced ones of
    a stream of more than 50); before the first step of the run `initial_accuracy_on/<j>`
    (in the first task's record only). At most `minibatches` test minibatches of each
    task. NaN where a task's labels are not in play, and for tasks to come where each has
    outputs of its own and the task is not known. Everything of the accuracy-matrix
    family (average accuracy, backward transfer, forgetting, ...) is derived from these
    numbers when the report is made. Raises ValueError where `minibatches` < 1, and for
    a stream without test examples.

    Source: Lopez-Paz and Ranzato, NeurIPS 2017, section 3.
    """
    del net
    _held_out.check(spec, minibatches)
    tasks = _held_out.evaluated_tasks(spec.num_tasks)
    # Without boundaries a stream does not say whether tasks' outputs compete.
    compete = spec.own_outputs and spec.scenario in ("class", "online")

    def row(probe: Probe) -> Array:
        def on(task):
            found = _held_out.scores(spec, probe, task, minibatches)[0]
            return jnp.where(compete & (task > probe.clock.task), jnp.nan, found)

        return jax.lax.map(on, jnp.asarray(tasks, jnp.int32))

    def named(prefix: str, values: Array) -> dict[str, Array]:
        return {f"{prefix}/{task}": values[i] for i, task in enumerate(tasks)}

    def read_start(probe):
        first = probe.clock.step == 0
        missing = jnp.full(len(tasks), jnp.nan)
        values = jax.lax.cond(first, lambda: row(probe), lambda: missing)
        return named("initial_accuracy_on", values)

    def read(state, probe):
        del state
        return named("accuracy_on", row(probe))

    return metric(read_start=read_start, read=read)
