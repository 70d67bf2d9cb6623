"""Runs -> groups: what shares one compiled program, and the account of it."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cl_bench import components, fields, registry
from cl_bench.atomic import canonical_json
from cl_bench.canonical import digest, identity
from cl_bench.components import Parts
from cl_bench.expand import RunSpec, expand
from cl_bench.types import StreamSpec

__all__ = [
    "Group",
    "RunSpec",
    "build",
    "canonical_json",
    "digest",
    "dry_run_text",
    "expand",
    "group",
    "group_key",
    "hyper_batch",
    "runs_table",
    "seeds",
    "total_steps",
]
_log = logging.getLogger(__name__)


class Group(NamedTuple):
    """Runs that one compiled program does, a lane each."""

    key: str  # folder name: method-stream-hash
    runs: tuple[RunSpec, ...]  # in lane order


def group(runs: Sequence[RunSpec]) -> tuple[Group, ...]:
    """Runs by compiled program, in order of first appearance; identical runs once."""
    found: dict[str, dict[str, RunSpec]] = {}
    for run in runs:
        lanes = found.setdefault(group_key(run), {})
        if lanes.setdefault(run.run_id, run) is not run:
            _log.warning("Run %s is there twice; it is done once.", run.run_id)
    return tuple(Group(key, tuple(lanes.values())) for key, lanes in found.items())


def group_key(run: RunSpec) -> str:
    """Names what is static in a run: all but the seed and the traced settings."""
    static = {k: v for k, v in run.hyper.items() if k not in _traced(run)}
    parts = (
        identity(run.stream),
        run.network,
        run.metrics,
        run.method,
        static,
        run.oracle,
    )
    readable = f"{run.method}-{run.stream['name']}"
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', readable)}-{digest(parts, 10)}"


def build(group: Group) -> Parts:
    """Stream, network, method module and metrics of a group; nothing is loaded."""
    run = group.runs[0]
    return components.make(run.stream, run.network, run.metrics, run.method)


def hyper_batch(group: Group) -> Any:
    """The method's `Hyper` with traced fields [L, ...] and static fields as they are.

    Numbers become float32, int32 or bool numpy arrays; lane l is `group.runs[l]`.
    """
    first = group.runs[0]
    values = dict(first.hyper)
    for name, dtype in _traced(first).items():
        values[name] = np.asarray([run.hyper[name] for run in group.runs], dtype)
    return registry.load("methods", first.method).Hyper(**values)


def seeds(group: Group) -> np.ndarray:
    """The seed of each lane, [L] uint32."""
    return np.asarray([run.seed for run in group.runs], np.uint32)


def runs_table(runs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """One JSON-ready row a run: names, labels, and every setting."""
    return [
        {
            "run_id": run.run_id,
            "group": group_key(run),
            "study": run.study,
            "benchmark": run.benchmark,
            "arm": run.arm,
            "stream": run.stream["name"],
            "network": run.network["name"],
            "method": run.method,
            "seed": run.seed,
            "oracle": run.oracle,
            "num_tasks": run.num_tasks,
            "score": run.score,
            "hyper": run.hyper,
            "stream_config": run.stream,
            "network_config": run.network,
            "metrics": list(run.metrics),
        }
        for run in runs
    ]


def total_steps(spec: StreamSpec) -> int:
    """Optimiser steps of one run."""
    if isinstance(spec.steps_per_task, int):
        return spec.num_tasks * spec.steps_per_task
    return sum(spec.steps_per_task)


def dry_run_text(
    groups: Sequence[Group], memory: Callable[[Group], int] | None = None
) -> str:
    """What a study would do, as plain text; `memory` estimates a group's bytes."""
    runs = [run for g in groups for run in g.runs]
    steps = sum(total_steps(build(g).stream.spec) * len(g.runs) for g in groups)
    head = (
        f"{len(runs)} runs ({_listed(r.benchmark for r in runs)}) in {len(groups)} "
        f"groups, {len(groups)} programs to compile, {steps:,} lane-steps"
    )
    lines = [head, ""]
    for g in groups:
        lines += [_group_line(g, memory), *_arm_lines(g), ""]
    return "\n".join(lines).rstrip() + "\n"


def _group_line(group: Group, memory: Callable[[Group], int] | None) -> str:
    spec = build(group).stream.spec
    per_task = total_steps(spec) / spec.num_tasks
    line = (
        f"{group.key}: {len(group.runs)} lanes, "
        f"{spec.num_tasks:,} tasks x {per_task:,.0f} steps"
    )
    if memory is not None:
        line += f", about {_bytes(memory(group))}"
    return line + (", oracle" if group.runs[0].oracle else "")


def _arm_lines(group: Group) -> list[str]:
    lanes: dict[tuple[str, str], int] = {}
    for run in group.runs:
        arm = (run.benchmark, run.arm)
        lanes[arm] = lanes.get(arm, 0) + 1
    return [f"  {bench}: {arm}, {n} runs" for (bench, arm), n in lanes.items()]


def _traced(run: RunSpec) -> dict[str, type]:
    """Name -> dtype of the settings that are batched over lanes: traced numbers."""
    found = {}
    for field in components.fields_of("method", run.method):
        value = run.hyper[field.name]
        if field.static or not _is_number(value):
            continue
        found[field.name] = _dtype(field, value)
    return found


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_number, value))
    return isinstance(value, bool | int | float)


def _dtype(field: fields.Field, value: Any) -> type:
    kind = np.asarray(value).dtype.kind
    if float in field.kinds or kind == "f":
        return np.float32
    return np.bool_ if kind == "b" else np.int32


def _listed(names: Any) -> str:
    return ", ".join(dict.fromkeys(names)) or "none"


def _bytes(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):  # noqa: B007 (used after the loop)
        if size < 1000:
            break
        size /= 1000
    return f"{size:.3g} {unit}"
