"""One lane of a run as two pure functions: the only place with a scan over steps.

The order of one task, here and nowhere else:
reset_head if the benchmark says so -> start_task -> read_start
-> [steps -> end_segment -> read_segment] x segments -> end_task -> read
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import units
from cl_bench.schedule import Schedule, schedule
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
STREAM, INIT, STEP, SEGMENT, START, END, PROBE = range(7)


class Carry(NamedTuple):
    """The state of one lane between two segments: all that a checkpoint holds."""

    learner: Learner
    task_state: PyTree
    metrics: tuple[PyTree, ...]


class Run(NamedTuple):
    """One lane, traced over data, seed and hyper-parameters."""

    schedule: Schedule
    init: Callable[[Dataset, Array, PyTree], Carry]
    chunk: Callable[..., tuple[Carry, dict[str, Array]]]
    # (data, seed, hyper, carry, first, count, static room) -> carry, rows {name: [room]}
    step: Callable[..., Learner]  # one unscanned step, for XLA's cost analysis


MakeMethod = Callable[[Network, StreamSpec, PyTree], Method]


def make_run(
    stream: Stream,
    net: Network,
    make_method: MakeMethod,
    metrics: Sequence[Metric],
    needs: frozenset[str],
) -> Run:
    """A lane's init and chunk functions; data, seed and hyper stay arguments.

    `needs` is what the method may know of {'boundaries', 'task_id'}: without
    'boundaries' it sees task 0, step_in_task = step, and no start_task or end_task.
    """
    plan = schedule(stream.spec)
    lane = _Lane(stream, net, make_method, tuple(metrics), needs, plan)
    return Run(plan, lane.init, lane.chunk, lane.one_step)


class _Lane(NamedTuple):
    """What every function of a lane reads; static."""

    stream: Stream
    net: Network
    make_method: MakeMethod
    metrics: tuple[Metric, ...]
    needs: frozenset[str]
    plan: Schedule

    def method(self, hyper: PyTree) -> Method:
        return self.make_method(self.net, self.stream.spec, hyper)

    def init(self, data: Dataset, seed: Array, hyper: PyTree) -> Carry:
        key = run_key(seed)
        learner = self.method(hyper).init(jax.random.fold_in(key, INIT))
        task_state = self.stream.start(
            data, jax.random.fold_in(key, STREAM), jnp.int32(0)
        )
        states = tuple(metric.init() for metric in self.metrics)
        return Carry(units.constrain(learner, self.net.units), task_state, states)

    def chunk(self, data, seed, hyper, carry, first, count, room: int):
        """`count` segments (traced, at most `room`) from segment `first` (traced) on.

        Rows are [room], NaN from `count` on: one program serves every chunk length.
        """

        def segment(carry, index):
            return _segment(self, data, run_key(seed), hyper, carry, index)

        def body(i, running):
            carry, row = segment(running[0], first + i)
            return carry, {name: running[1][name].at[i].set(row[name]) for name in row}

        names = jax.eval_shape(segment, carry, jnp.int32(0))[1]
        rows = {name: jnp.full(room, jnp.nan) for name in names}
        return jax.lax.fori_loop(0, count, body, (carry, rows))

    def one_step(self, data, seed, hyper, carry):
        """One step without its scan, as the cost record counts it."""
        clock = Clock(*(jnp.int32(0),) * 3)
        return _step(self, data, run_key(seed), self.method(hyper), carry, clock)[0]

    def visible(self, clock: Clock) -> Clock:
        """The clock as the method may see it."""
        if "boundaries" in self.needs:
            return clock
        return Clock(clock.step, jnp.zeros_like(clock.task), clock.step)

    def visible_batch(self, batch: Batch) -> Batch:
        """The batch as the method may see it."""
        if "task_id" in self.needs:
            return batch
        return batch._replace(task=jnp.zeros_like(batch.task))


def run_key(seed: Array | int) -> Key:
    """The key of a run: everything random in it is folded out of this one."""
    return jax.random.fold_in(jax.random.key(ROOT_SEED, impl="threefry2x32"), seed)


def _segment(lane: _Lane, data, key, hyper, carry: Carry, segment: Array):
    plan, method = lane.plan, lane.method(hyper)
    task = segment // plan.segments_per_task
    offset = (segment % plan.segments_per_task) * plan.steps_per_segment
    base = jnp.asarray(plan.starts, jnp.int32)[task]
    clock = Clock(base + offset, task, offset)
    first = offset == 0
    last = segment % plan.segments_per_task == plan.segments_per_task - 1
    carry, started = _when(first, _start, lane, data, key, method, carry, clock)
    carry = _steps(lane, data, key, method, carry, clock)
    length = jnp.asarray(plan.lengths, jnp.int32)[task]
    done = jnp.minimum(offset + plan.steps_per_segment, length)
    clock = Clock(base + done, task, done)
    # A task shorter than the longest one has segments without a step: nothing ends.
    end_segment = partial(_when, offset < length) if plan.padded else _always
    carry, read = end_segment(_end_segment, lane, data, key, method, carry, clock)
    carry, ended = _when(last, _end, lane, data, key, method, carry, clock)
    return carry, {**_diverged(carry), **started, **read, **ended}


def _when(predicate: Array, phase, lane, data, key, method, carry: Carry, clock):
    """Run a phase if the (unbatched) predicate holds; else NaN for all its numbers."""

    def run(carry):
        return phase(lane, data, key, method, carry, clock)

    shapes = jax.eval_shape(run, carry)[1]

    def skip(carry):
        return carry, jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan), shapes)

    return jax.lax.cond(predicate, run, skip, carry)


def _always(phase, lane, data, key, method, carry: Carry, clock):
    return phase(lane, data, key, method, carry, clock)


def _start(lane: _Lane, data, key, method: Method, carry: Carry, clock: Clock):
    """reset_head -> start_task -> read_start, at the first step of a task."""
    stream_key = jax.random.fold_in(key, STREAM)
    carry = carry._replace(task_state=lane.stream.start(data, stream_key, clock.task))
    learner = carry.learner
    if lane.stream.spec.reset_head:
        learner = learner._replace(net=reset_head(learner.net, lane.net.head))
    if "boundaries" in lane.needs:
        at = jax.random.fold_in(jax.random.fold_in(key, START), clock.task)
        learner = method.start_task(at, clock, _train(lane, data, carry), learner)
    carry = carry._replace(learner=units.constrain(learner, lane.net.units))
    probe = _probe(lane, data, key, method, carry, clock)
    return carry, _merge(metric.read_start(probe) for metric in lane.metrics)


def _steps(lane: _Lane, data, key, method: Method, carry: Carry, clock: Clock) -> Carry:
    def body(running, i):
        now = Clock(clock.step + i, clock.task, clock.step_in_task + i)
        at = carry._replace(learner=running[0], metrics=running[1])
        if not lane.plan.padded:
            return _step(lane, data, key, method, at, now), None
        length = jnp.asarray(lane.plan.lengths, jnp.int32)[now.task]
        return jax.lax.cond(
            now.step_in_task < length,
            lambda: _step(lane, data, key, method, at, now),
            lambda: running,
        ), None

    counts = jnp.arange(lane.plan.steps_per_segment, dtype=jnp.int32)
    done = jax.lax.scan(body, (carry.learner, carry.metrics), counts)[0]
    return carry._replace(learner=done[0], metrics=done[1])


def _step(lane: _Lane, data, key, method: Method, carry: Carry, clock: Clock):
    """stream.batch -> method.step -> constrain -> metric.update."""
    batch = lane.stream.batch(data, carry.task_state, clock.step_in_task)
    step_key = jax.random.fold_in(jax.random.fold_in(key, STEP), clock.step)
    seen = lane.visible_batch(batch)
    learner, signals = method.step(step_key, lane.visible(clock), seen, carry.learner)
    learner = units.constrain(learner, lane.net.units)
    states = tuple(
        metric.update(state, clock, batch, learner, signals)
        for metric, state in zip(lane.metrics, carry.metrics, strict=True)
    )
    return learner, states


def _end_segment(lane: _Lane, data, key, method: Method, carry: Carry, clock: Clock):
    at = jax.random.fold_in(jax.random.fold_in(key, SEGMENT), clock.step)
    learner = method.end_segment(
        at, lane.visible(clock), _train(lane, data, carry), carry.learner
    )
    carry = carry._replace(learner=units.constrain(learner, lane.net.units))
    probe = _probe(lane, data, key, method, carry, clock)
    pairs = zip(lane.metrics, carry.metrics, strict=True)
    return carry, _merge(metric.read_segment(state, probe) for metric, state in pairs)


def _end(lane: _Lane, data, key, method: Method, carry: Carry, clock: Clock):
    """end_task -> read; the metrics' sums start anew with the next task."""
    learner = carry.learner
    if "boundaries" in lane.needs:
        at = jax.random.fold_in(jax.random.fold_in(key, END), clock.task)
        learner = method.end_task(at, clock, _train(lane, data, carry), learner)
    carry = carry._replace(learner=units.constrain(learner, lane.net.units))
    probe = _probe(lane, data, key, method, carry, clock)
    pairs = zip(lane.metrics, carry.metrics, strict=True)
    rows = _merge(metric.read(state, probe) for metric, state in pairs)
    return carry._replace(metrics=tuple(m.init() for m in lane.metrics)), rows


def _train(lane: _Lane, data, carry: Carry) -> Callable[[Array], Batch]:
    def train(i: Array) -> Batch:
        return lane.visible_batch(lane.stream.batch(data, carry.task_state, i))

    return train


def _probe(lane: _Lane, data, key, method: Method, carry: Carry, clock: Clock) -> Probe:
    stream_key = jax.random.fold_in(key, STREAM)

    def held_out(task: Array, split: str, i: Array) -> Batch:
        state = lane.stream.start(data, stream_key, task)
        return lane.stream.held_out(data, state, split, clock.task, i)

    def train(i: Array) -> Batch:
        return lane.stream.batch(data, carry.task_state, i)

    def predict(learner: Learner, batch: Batch):
        return method.predict(learner, lane.visible_batch(batch))

    return Probe(clock, carry.learner, predict, train, held_out)


def reset_head(net, head: str):
    """Weights and biases of the output layer set to 0: the benchmark's own reset."""
    zeros = jax.tree.map(jnp.zeros_like, net.params[head])
    return net._replace(params={**net.params, head: zeros})


def _diverged(carry: Carry) -> dict[str, Array]:
    """1 where any parameter is no longer finite: recorded for every lane."""
    leaves = jax.tree.leaves(carry.learner.net.params)
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]).all()
    return {"diverged": 1.0 - finite.astype(jnp.float32)}


def _merge(rows) -> dict[str, Array]:
    merged: dict[str, Array] = {}
    for row in rows:
        if clash := merged.keys() & row.keys():
            raise ValueError(f"two metrics both record {', '.join(sorted(clash))}")
        merged |= {name: jnp.asarray(v, jnp.float32) for name, v in row.items()}
    return merged
