"""What metrics share: a Metric from its phases, a task's start, which weights count."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.types import (
    Batch,
    Method,
    Metric,
    NetState,
    Network,
    Probe,
    StreamSpec,
    Unit,
)

PROBE_EXAMPLES = 2_000  # Dohare et al. 2024: the first 2,000 examples of a task


def metric(
    *,
    init: Callable = lambda: (),
    read_start: Callable = lambda probe: {},
    update: Callable = lambda state, clock, batch, learner, signals: state,
    read_segment: Callable = lambda state, probe: {},
    read: Callable = lambda state, probe: {},
    end_task: Callable | None = None,
    check: Callable[[Method], None] | None = None,
) -> Metric:
    """A Metric whose unnamed phases do nothing, and whose state is a task's own."""
    return Metric(init, read_start, update, read_segment, read, end_task, check)


def first_examples(spec: StreamSpec, probe: Probe, examples: int) -> Batch:
    """The task's first training examples as one batch.

    As many as the largest number of whole batches in `examples`, at most a task's.
    """
    examples = min(examples, spec.examples_per_task)
    batches = jnp.arange(max(1, examples // spec.batch_size), dtype=jnp.int32)
    stacked = jax.vmap(probe.train)(batches)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), stacked)


def first_activations(
    net: Network, spec: StreamSpec, probe: Probe, examples: int = PROBE_EXAMPLES
) -> dict[str, Array]:
    """Activations of each hidden layer on `first_examples`: unit name -> [n, ..., U]."""
    batch = first_examples(spec, probe, examples)
    acts = probe.predict(probe.learner, batch)[1]
    return {unit.name: acts[unit.name] for unit in net.units}


def alive_units(state: NetState, unit: Unit) -> Array:
    """[U] bool: the units of a layer that are in use."""
    return state.alive.get(unit.name, jnp.ones(unit.size, bool))


def mean_over_steps(name: str, value: Callable[..., Array]) -> Metric:
    """The metric `name`: mean over a task's steps of value(batch, learner, signals)."""

    def init():
        return {"total": jnp.zeros(()), "steps": jnp.zeros(())}

    def update(state, clock, batch, learner, signals):
        del clock
        total = state["total"] + value(batch, learner, signals)
        return {"total": total, "steps": state["steps"] + 1.0}

    def read(state, probe):
        del probe
        return {name: state["total"] / state["steps"]}

    return metric(init=init, update=update, read=read)
