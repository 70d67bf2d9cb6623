"""What metrics share: a Metric from the phases it uses, and a look at a task's start."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.types import Metric, Network, Probe, StreamSpec

PROBE_EXAMPLES = 2_000  # Dohare et al. 2024: the first 2,000 examples of a task


def metric(
    *,
    init: Callable = lambda: (),
    read_start: Callable = lambda probe: {},
    update: Callable = lambda state, clock, batch, learner, signals: state,
    read_segment: Callable = lambda state, probe: {},
    read: Callable = lambda state, probe: {},
) -> Metric:
    """A Metric whose unnamed phases do nothing."""
    return Metric(init, read_start, update, read_segment, read)


def first_activations(
    net: Network, spec: StreamSpec, probe: Probe, examples: int = PROBE_EXAMPLES
) -> dict[str, Array]:
    """Activations of each hidden layer on the task's first training examples.

    Returns unit name -> [n, ..., U], n the largest number of whole batches in
    `examples`, at most a task's.
    """
    examples = min(examples, spec.examples_per_task)
    batches = jnp.arange(max(1, examples // spec.batch_size), dtype=jnp.int32)
    stacked = jax.vmap(probe.train)(batches)
    merged = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), stacked)
    acts = probe.predict(probe.learner, merged)[1]
    return {unit.name: acts[unit.name] for unit in net.units}
