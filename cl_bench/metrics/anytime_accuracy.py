"""Anytime accuracy: test accuracy on the tasks so far, also in the middle of a task."""

import jax
import jax.numpy as jnp

from cl_bench.metrics import _held_out
from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec, *, minibatches: int = 10) -> Metric:
    """`anytime_accuracy_on/<j>` at every segment's end, of tasks j so far, in [0, 1].

    How often is `steps_per_segment` of the stream: every few steps shows the stability
    gap. NaN for tasks to come; at most `minibatches` test minibatches of each task.
    Raises ValueError where `minibatches` < 1, and for a stream without test examples.

    Source: De Lange et al., ICLR 2023 (continual evaluation); Caccia et al. 2022 (AAA).
    """
    del net
    _held_out.check(spec, minibatches)
    tasks = _held_out.evaluated_tasks(spec.num_tasks)

    def read_segment(state, probe):
        del state

        def on(task):
            return jax.lax.cond(
                task <= probe.clock.task,
                lambda: _held_out.scores(spec, probe, task, minibatches)[0],
                lambda: jnp.float32(jnp.nan),
            )

        values = jax.lax.map(on, jnp.asarray(tasks, jnp.int32))
        names = (f"anytime_accuracy_on/{task}" for task in tasks)
        return {name: values[i] for i, name in enumerate(names)}

    return metric(read_segment=read_segment)
