"""One lane of a run as two pure functions: the only place with a scan over steps.

The order of one task, here and nowhere else:
reset_head if the benchmark says so -> start_task -> read_start
-> [steps -> end_segment -> read_segment] x segments
-> the best network of the task, if the benchmark says so -> end_task -> read
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import restore, units
from cl_bench.lane import (
    END,
    SEGMENT,
    START,
    STEP,
    STREAM,
    Carry,
    Lane,
    MakeMethod,
    diverged,
    merge,
    run_key,
)
from cl_bench.schedule import Schedule, schedule
from cl_bench.types import (
    Clock,
    Dataset,
    Learner,
    Method,
    Metric,
    Network,
    PyTree,
    Stream,
)

HOOKS = ("start_task", "end_segment", "end_task")


class Run(NamedTuple):
    """One lane, traced over data, seed and hyper-parameters."""

    schedule: Schedule
    init: Callable[[Dataset, Array, PyTree], Carry]
    chunk: Callable[..., tuple[Carry, dict[str, Array]]]
    # (data, seed, hyper, carry, first, count, static room) -> carry, rows {name: [room]}
    # For the cost record, each (data, seed, hyper, carry) -> learner, in the last task:
    step: Callable[..., Learner]  # one step without its scan
    hooks: dict[str, Callable[..., Learner]]  # one call of each hook of the method


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
    lane = Lane(stream, net, make_method, tuple(metrics), needs, plan)
    hooks = {name: partial(_one_hook, lane, name) for name in HOOKS}
    step = partial(_one_step, lane)
    return Run(plan, lane.init, partial(_chunk, lane), step, hooks)


def _chunk(lane: Lane, data, seed, hyper, carry, first, count, room: int):
    """`count` segments (traced, at most `room`) from segment `first` (traced) on.

    Rows are [room], NaN from `count` on: one program serves every chunk length.
    """

    def segment(carry, index):
        return _segment(lane, data, run_key(seed), hyper, carry, index)

    def body(i, running):
        carry, row = segment(running[0], first + i)
        return carry, {name: running[1][name].at[i].set(row[name]) for name in row}

    names = jax.eval_shape(segment, carry, jnp.int32(0))[1]
    rows = {name: jnp.full(room, jnp.nan) for name in names}
    return jax.lax.fori_loop(0, count, body, (carry, rows))


def _one_step(lane: Lane, data, seed, hyper, carry):
    """The first step of the last task, which has the most past, without its scan."""
    clock = lane.step_clock(*_last_task(lane))
    return _step(lane, data, run_key(seed), lane.method(hyper), carry, clock)[0]


def _one_hook(lane: Lane, name: str, data, seed, hyper, carry):
    """What the method's hook makes of the learner: no reset, metric or constraint."""
    if name != "end_segment" and "boundaries" not in lane.needs:
        return carry.learner
    clock = lane.visible(Clock(*_last_task(lane)))
    hook = getattr(lane.method(hyper), name)
    return hook(run_key(seed), clock, lane.train(data, carry), carry.learner)


def _last_task(lane: Lane) -> tuple[Array, Array, Array]:
    """Step, task and step in task at the start of the last task, as constants."""
    plan = lane.plan
    return jnp.int32(plan.starts[-1]), jnp.int32(plan.num_tasks - 1), jnp.int32(0)


def _segment(lane: Lane, data, key, hyper, carry: Carry, segment: Array):
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
    return carry, {**diverged(carry), **started, **read, **ended}


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


def _start(lane: Lane, data, key, method: Method, carry: Carry, clock: Clock):
    """reset_head -> start_task -> read_start, at the first step of a task."""
    stream_key = jax.random.fold_in(key, STREAM)
    carry = carry._replace(task_state=lane.stream.start(data, stream_key, clock.task))
    learner = carry.learner
    if lane.stream.spec.reset_head:
        learner = learner._replace(net=units.reset_head(learner.net, lane.net.head))
    if "boundaries" in lane.needs:
        at = jax.random.fold_in(jax.random.fold_in(key, START), clock.task)
        learner = method.start_task(at, clock, lane.train(data, carry), learner)
    learner = units.constrain(learner, lane.net.units)
    best = restore.start(lane.stream.spec, learner)
    carry = carry._replace(learner=learner, best=best)
    probe = lane.probe(data, key, method, carry, clock)
    return carry, merge(metric.read_start(probe) for metric in lane.metrics)


def _steps(lane: Lane, data, key, method: Method, carry: Carry, clock: Clock) -> Carry:
    def body(running, i):
        now = lane.step_clock(clock.step + i, clock.task, clock.step_in_task + i)
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


def _step(lane: Lane, data, key, method: Method, carry: Carry, clock: Clock):
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


def _end_segment(lane: Lane, data, key, method: Method, carry: Carry, clock: Clock):
    at = jax.random.fold_in(jax.random.fold_in(key, SEGMENT), clock.step)
    learner = method.end_segment(
        at, lane.visible(clock), lane.train(data, carry), carry.learner
    )
    carry = carry._replace(learner=units.constrain(learner, lane.net.units))
    probe = lane.probe(data, key, method, carry, clock)
    best = restore.update(lane.stream.spec, probe, carry.best)
    carry = carry._replace(best=best)
    pairs = zip(lane.metrics, carry.metrics, strict=True)
    return carry, merge(metric.read_segment(state, probe) for metric, state in pairs)


def _end(lane: Lane, data, key, method: Method, carry: Carry, clock: Clock):
    """end_task -> read; most metrics' sums start anew with the next task."""
    learner = restore.put_back(lane.stream.spec, carry.learner, carry.best)
    if "boundaries" in lane.needs:
        at = jax.random.fold_in(jax.random.fold_in(key, END), clock.task)
        learner = method.end_task(at, clock, lane.train(data, carry), learner)
    carry = carry._replace(learner=units.constrain(learner, lane.net.units))
    probe = lane.probe(data, key, method, carry, clock)
    states = [
        metric.end_task(state, probe) if metric.end_task else state
        for metric, state in zip(lane.metrics, carry.metrics, strict=True)
    ]
    pairs = tuple(zip(lane.metrics, states, strict=True))
    rows = merge(metric.read(state, probe) for metric, state in pairs)
    kept = tuple(state if metric.end_task else metric.init() for metric, state in pairs)
    return carry._replace(metrics=kept), rows
