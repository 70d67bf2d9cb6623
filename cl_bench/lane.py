"""What one lane is made of: its parts, its keys, and who may see what of it."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import restore, units
from cl_bench.schedule import Schedule
from cl_bench.types import (
    Batch,
    Clock,
    Dataset,
    Key,
    Learner,
    Method,
    Metric,
    Network,
    Probe,
    PyTree,
    Stream,
    StreamSpec,
)

ROOT_SEED = 632_768  # Nature 632, page 768
STREAM, INIT, STEP, SEGMENT, START, END = range(6)

MakeMethod = Callable[[Network, StreamSpec, PyTree], Method]


class Carry(NamedTuple):
    """The state of one lane between two segments: all that a checkpoint holds."""

    learner: Learner
    task_state: PyTree
    metrics: tuple[PyTree, ...]
    best: PyTree = ()  # `restore.Best` where the benchmark puts the best network back


class Lane(NamedTuple):
    """What every function of a lane reads; static."""

    stream: Stream
    net: Network
    make_method: MakeMethod
    metrics: tuple[Metric, ...]
    needs: frozenset[str]
    plan: Schedule

    def method(self, hyper: PyTree) -> Method:
        """The method under one setting of the traced hyper-parameters."""
        return self.make_method(self.net, self.stream.spec, hyper)

    def init(self, data: Dataset, seed: Array, hyper: PyTree) -> Carry:
        """The lane before its first segment."""
        key = run_key(seed)
        learner = self.method(hyper).init(jax.random.fold_in(key, INIT))
        task_state = self.stream.start(
            data, jax.random.fold_in(key, STREAM), jnp.int32(0)
        )
        states = tuple(metric.init() for metric in self.metrics)
        learner = units.constrain(learner, self.net.units)
        best = restore.start(self.stream.spec, learner)
        return Carry(learner, task_state, states, best)

    def step_clock(self, step: Array, task: Array, step_in_task: Array) -> Clock:
        """The clock of one step, with the factor that the benchmark's schedule gives."""
        scale: Array | float = 1.0
        length = jnp.asarray(self.plan.lengths, jnp.float32)[task]
        for fraction, factor in self.stream.spec.step_schedule:
            scale = jnp.where(step_in_task >= fraction * length, factor, scale)
        return Clock(step, task, step_in_task, scale)

    def visible(self, clock: Clock) -> Clock:
        """The clock as the method may see it."""
        if "boundaries" in self.needs:
            return clock
        return clock._replace(task=jnp.zeros_like(clock.task), step_in_task=clock.step)

    def visible_batch(self, batch: Batch) -> Batch:
        """The batch as the method may see it."""
        if "task_id" in self.needs:
            return batch
        return batch._replace(task=jnp.zeros_like(batch.task))

    def train(self, data: Dataset, carry: Carry) -> Callable[[Array], Batch]:
        """Training batch i of the current task, as the method may see it."""

        def batch(i: Array) -> Batch:
            return self.visible_batch(self.stream.batch(data, carry.task_state, i))

        return batch

    def probe(
        self, data: Dataset, key: Key, method: Method, carry: Carry, clock: Clock
    ) -> Probe:
        """What the metrics read at this point of the run; they see the true task."""

        def held_out(task: Array, split: str, i: Array) -> Batch:
            state = self.stream.start(data, jax.random.fold_in(key, STREAM), task)
            return self.stream.held_out(data, state, split, clock.task, i)

        def train(i: Array) -> Batch:
            return self.stream.batch(data, carry.task_state, i)

        def of_visible(function: Callable) -> Callable:
            return lambda learner, batch: function(learner, self.visible_batch(batch))

        predict, weights = of_visible(method.predict), method.task_weights
        weights = None if weights is None else of_visible(weights)
        return Probe(clock, carry.learner, predict, train, held_out, weights)


def run_key(seed: Array | int) -> Key:
    """The key of a run: everything random in it is folded out of this one."""
    return jax.random.fold_in(jax.random.key(ROOT_SEED, impl="threefry2x32"), seed)


def diverged(carry: Carry) -> dict[str, Array]:
    """1 where any parameter is no longer finite: recorded for every lane."""
    leaves = jax.tree.leaves(carry.learner.net.params)
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all()
    return {"diverged": 1.0 - finite.astype(jnp.float32)}


def merge(rows: Iterable[dict[str, Array]]) -> dict[str, Array]:
    """One row of all metrics' numbers. Raises ValueError where two share a name."""
    merged: dict[str, Array] = {}
    for row in rows:
        if clash := merged.keys() & row.keys():
            raise ValueError(f"two metrics both record {', '.join(sorted(clash))}")
        merged |= {name: jnp.asarray(v, jnp.float32) for name, v in row.items()}
    return merged
