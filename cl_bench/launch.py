"""One group from its first compilation to its last record, resumable at every save."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cl_bench import checkpoints, cost, execute, parts, store, study
from cl_bench.atomic import read_json, write_json
from cl_bench.components import Parts
from cl_bench.execute import Chunk, Lanes, Program
from cl_bench.interrupts import Stopped, stop_if_asked
from cl_bench.progress import Progress
from cl_bench.rows import record_rows, score
from cl_bench.runner import Run, make_run
from cl_bench.study import Group
from cl_bench.types import Dataset, PyTree

REHEARSAL_STEPS = 64
MEMORY_SHARE = 0.8  # of an accelerator's memory that one group may take


class Plan(NamedTuple):
    """What was chosen for a group before its first chunk; a resume reads it."""

    strategy: str
    width: int  # lanes in one program
    devices: int


def run_study_group(
    group: Group,
    workdir: Path,
    settings: dict[str, Any],
    progress: Progress,
    stopping: Callable[[], int],
) -> None:
    """Run all lanes of a group, in batches that fit the device; done batches are skipped.

    `settings` is config.execution. `stopping()` is asked after every chunk: the number
    of a signal, or 0. Raises Stopped once the state is saved.
    """
    if is_done(group, workdir):
        return
    stop_if_asked(stopping)
    folder = store.group_dir(workdir, group.key)
    made = study.build(group)
    run = make_group_run(made)
    data = made.stream.load()
    lanes = Lanes(study.seeds(group), study.hyper_batch(group))
    plan = _plan(folder, made, run, data, lanes, settings)
    program: Program | None = None
    for batch in batches(group, plan.width):
        target = store.group_dir(workdir, batch.key)
        if store.is_done(target):
            continue
        stop_if_asked(stopping)
        lanes = Lanes(study.seeds(batch), study.hyper_batch(batch))
        if program is None:
            program = execute.compile_group(
                run, data, lanes, plan.strategy, plan.devices, plan.width
            )
            stop_if_asked(stopping)
        else:
            program = execute.with_lanes(program, lanes)
        _Batch(batch, target, run, program, plan, settings).run(progress, stopping)


def is_done(group: Group, workdir: Path) -> bool:
    """Whether all batches of the group are finished, and their parts sound."""
    path = workdir / "groups" / group.key / "plan.json"
    return path.exists() and all(
        store.is_done(workdir / "groups" / batch.key)
        for batch in batches(group, Plan(**read_json(path)).width)
    )


def make_group_run(made: Parts) -> Run:
    """The lane functions of a group's parts."""
    method = made.method
    return make_run(made.stream, made.network, method.make, made.metrics, method.NEEDS)


def batches(group: Group, width: int) -> list[Group]:
    """The group in pieces of at most `width` lanes; the first keeps the group's key."""
    pieces = [group.runs[i : i + width] for i in range(0, len(group.runs), width)]
    keys = [group.key] + [f"{group.key}+{i}" for i in range(1, len(pieces))]
    return [Group(k, runs) for k, runs in zip(keys, pieces, strict=True)]


def _plan(
    folder: Path,
    made: Parts,
    run: Run,
    data: Dataset,
    lanes: Lanes,
    settings: dict[str, Any],
) -> Plan:
    """The group's plan: as written by an earlier process, else chosen and written."""
    path = folder / "plan.json"
    if path.exists():
        return Plan(**read_json(path))
    devices = settings["devices"] or jax.local_device_count()
    strategy = settings["lanes"]
    if strategy == "auto":
        strategy = _auto_strategy(made, data, lanes, devices)
    width = settings["lane_width"] or lanes.number
    if not settings["lane_width"]:
        width = _fitting_width(run, data, lanes, strategy, devices)
    plan = Plan(strategy, min(width, lanes.number), devices)
    write_json(path, plan._asdict())
    return plan


def _auto_strategy(made: Parts, data: Dataset, lanes: Lanes, devices: int) -> str:
    """vmap on accelerators; on a CPU whichever runs a short rehearsal sooner."""
    if jax.default_backend() != "cpu":
        return "vmap"
    if lanes.number <= devices:  # one lane a device: both are the same program
        return "map"
    spec = made.stream.spec
    longest = np.max(spec.steps_per_task)
    steps = int(min(REHEARSAL_STEPS, spec.steps_per_segment, longest))
    # Two segments, the second of which is timed: not what only a task's start costs.
    short = spec._replace(
        num_tasks=1, steps_per_task=2 * steps, steps_per_segment=steps
    )
    stream = made.stream._replace(spec=short)
    rehearsal = make_group_run(made._replace(stream=stream, metrics=[]))
    runs = dict.fromkeys(execute.STRATEGIES, rehearsal)
    return execute.fastest(runs, data, lanes, devices)


def _fitting_width(
    run: Run, data: Dataset, lanes: Lanes, strategy: str, devices: int
) -> int:
    """All lanes, or on an accelerator as many as its memory holds."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit, width = stats.get("bytes_limit"), lanes.number
    while limit and width > devices:
        head = jax.tree.map(lambda leaf, n=width: leaf[:n], lanes)
        needed = execute.compile_group(run, data, head, strategy, devices).memory_bytes
        if needed is None or needed <= MEMORY_SHARE * limit:
            break
        width = math.ceil(width / 2)
    return width


def estimated_memory(group: Group) -> int:
    """Bytes that a group needs at least: its data, and its carries twice over."""
    made = study.build(group)
    data = made.stream.load()
    hyper = jax.tree.map(lambda leaf: leaf[0], study.hyper_batch(group))
    run = make_group_run(made)
    carry = jax.eval_shape(run.init, data, study.seeds(group)[0], hyper)
    lanes = len(group.runs)
    return cost.size_in_bytes(data) + 2 * lanes * cost.size_in_bytes(carry)


class _Batch(NamedTuple):
    """One batch of lanes on its way to disk."""

    group: Group
    folder: Path
    run_: Run
    program: Program
    plan: Plan
    settings: dict[str, Any]

    def run(self, progress: Progress, stopping: Callable[[], int]) -> None:
        """Resume, run, save; marks the batch as done at the end."""
        program = self.program
        at = store.consistent_resume(self.folder)
        start = None
        if at.next_segment:
            shape = execute.carry_shape(program)
            restored = checkpoints.restore(self.folder, at.next_segment, shape)
            start = (at.next_segment, restored)
        plan = self.run_.schedule
        self.write_facts(0.0, 0)
        with progress.group(
            self.group.key, plan.num_segments, program.width, plan.steps_per_segment,
            plan.num_tasks, first_segment=at.next_segment,
        ) as line:  # fmt: skip
            self.loop(start, at.num_parts, line, stopping)
        store.mark_done(self.folder, {"lanes": program.width})

    def loop(self, start, num_parts: int, line, stopping) -> None:
        """Chunks to the end; a part and a checkpoint at every save."""
        pending: list[Chunk] = []
        began = saved = time.monotonic()
        seconds = self.settings["chunk_seconds"]
        for chunk in execute.run_group(
            self.run_, self.program, chunk_seconds=seconds, start=start
        ):
            pending.append(chunk._replace(carry=None))
            end = chunk.first + chunk.count
            line.update(end, score(chunk))
            finished, stop = end == self.run_.schedule.num_segments, stopping()
            now = time.monotonic()
            due = now - saved >= self.settings["checkpoint_seconds"]
            if finished or stop or due:
                self.save(pending, num_parts, chunk.carry)
                segments = sum(c.count for c in pending) * self.program.width
                self.write_facts(now - began, segments)
                num_parts, pending = num_parts + 1, []
                began = saved = time.monotonic()
            if stop and not finished:
                raise Stopped(stop)

    def save(self, pending: list[Chunk], num_parts: int, carry: PyTree) -> None:
        """The rows since the last save, then the state after them."""
        first, last = pending[0].first, pending[-1].first + pending[-1].count
        rows = record_rows(self.group, self.run_.schedule, pending)
        parts.write_part(self.folder, num_parts, rows, first, last)
        checkpoints.save(self.folder, last, num_parts + 1, carry)

    def write_facts(self, seconds: float, lane_segments: int) -> None:
        """group.json: what ran, what it cost; times add up over resumes."""
        program = self.program
        path = self.folder / "group.json"
        old = read_json(path) if path.exists() else {}
        wall = old.get("wall_seconds", 0.0) + seconds
        done = old.get("lane_segments", 0) + lane_segments
        steps = done * self.run_.schedule.steps_per_segment
        facts = {
            "lanes": program.width,
            "lane_width": self.plan.width,
            "strategy": program.strategy,
            "devices": program.devices,
            "device": jax.local_devices()[0].device_kind,
            "compile_seconds": old.get("compile_seconds", program.compile_seconds),
            "memory_bytes": program.memory_bytes,
            "wall_seconds": wall,
            "lane_segments": done,
            "lane_steps_per_second": steps / wall if wall else None,
            "matmul_precision": jax.config.values["jax_default_matmul_precision"],
        }
        write_json(path, facts | (cost.known(old) or cost.measure(self.run_, program)))
