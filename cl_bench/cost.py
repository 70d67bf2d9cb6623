"""The cost record: what a step, a task and a learner take, before anything has run."""

import re
from typing import Any

import jax
import numpy as np

from cl_bench import flops
from cl_bench.execute import Program
from cl_bench.runner import Run
from cl_bench.types import Learner, PyTree

FIELDS = (
    "flops_per_step", "flops_per_task", "charged_flops_per_step", "loops_counted_once",
    "bytes_per_step", "parameters", "learner_bytes", "bytes_beyond_network",
    "learner_bytes_by_kind",
)  # fmt: skip
UNNAMED = {"grad_transform": "gradient transform", "transform": "network transform"}


def measure(run: Run, program: Program) -> dict[str, Any]:
    """What one lane takes: operations and bytes, of the last task where they grow.

    `flops_per_step` is a step with the reading of its batch, `flops_per_task` the
    method's start_task, end_task and as many end_segment as a task has; metrics are in
    neither. `charged_flops_per_step` is the first plus the second over the task's
    steps. `loops_counted_once`: loops in them whose turns are not known beforehand
    (`flops.count`). `bytes_per_step` is XLA's estimate before optimisation, loops once,
    None where it gives none. `learner_bytes` is all that the method carries,
    `bytes_beyond_network` that without its network, `parameters` its network's.
    """
    seed, hyper = jax.tree.map(_one_lane, tuple(program.lanes))
    data = jax.tree.map(_shape, program.data)
    carry = jax.eval_shape(run.init, data, seed, hyper)
    at, plan = (data, seed, hyper, carry), run.schedule
    traced = jax.jit(run.step).trace(*at)
    moved = traced.lower().cost_analysis() or {}
    step = flops.of_traced(traced.jaxpr)
    hooks = {name: flops.count(hook, *at) for name, hook in run.hooks.items()}
    # The segments of a task that is shorter than the longest one are fewer.
    segments = float(np.ceil(plan.lengths / plan.steps_per_segment).mean())
    turns = {"start_task": 1.0, "end_segment": segments, "end_task": 1.0}
    per_task = sum(turns[name] * hook.flops for name, hook in hooks.items())
    params = jax.tree.leaves(carry.learner.net.params)
    total = size_in_bytes(carry.learner)
    return {
        "flops_per_step": step.flops,
        "flops_per_task": per_task,
        "charged_flops_per_step": step.flops + per_task / float(plan.lengths.mean()),
        "loops_counted_once": sum(c.loops_once for c in (step, *hooks.values())),
        "bytes_per_step": moved.get("bytes accessed"),
        "parameters": sum(leaf.size for leaf in params),
        "learner_bytes": total,
        "bytes_beyond_network": total - size_in_bytes(carry.learner.net),
        "learner_bytes_by_kind": bytes_by_kind(carry.learner),
    }


def known(facts: dict[str, Any]) -> dict[str, Any] | None:
    """The cost record that an earlier write of group.json holds, if it is a whole one."""
    found = {k: facts[k] for k in FIELDS if k in facts}
    return found if len(found) == len(FIELDS) else None


def bytes_by_kind(learner: Learner) -> dict[str, int]:
    """Bytes of each thing that a learner carries, by name; nothing empty.

    'network', 'optimizer', then the entries of `extra` under their own keys. What a
    transform keeps has the name of its type ('memory'). Split into their parts are the
    only entry of a method that keeps all of its own in one ('adapters', 'core'), and
    what has several trees shaped like the parameters ('anchors weight', 'anchors
    centre').
    """
    found: dict[str, int] = {"network": 0, "optimizer": 0}
    parts = [("network", learner.net), ("optimizer", learner.opt)]
    for key, value in learner.extra.items():
        for name, part in _parts(key, value, learner):
            parts.append((name, part))
    for name, part in parts:
        found[name] = found.get(name, 0) + size_in_bytes(part)
    return {name: size for name, size in found.items() if size}


def _parts(key: str, value: PyTree, learner: Learner) -> list[tuple[str, PyTree]]:
    """An entry of `extra` as named parts."""
    params = learner.net.params
    name, fields = key, getattr(value, "_asdict", dict)()
    if transform := re.fullmatch(r"((?:grad_)?transform)_\d+", key):
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(value).__name__).lower()
        name = kind if fields else UNNAMED[transform[1]]
    alike = jax.tree.structure(params)
    if fields and all(jax.tree.structure(f) == alike for f in fields.values()):
        return [(f"{name} {field}", part) for field, part in fields.items()]
    own = isinstance(value, dict) and not set(value) <= set(params)
    if own and len(learner.extra) == 1:
        return list(value.items())
    return [(name, value)]


def size_in_bytes(tree: PyTree) -> int:
    """Bytes of every array (or shape) of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)


def _one_lane(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
