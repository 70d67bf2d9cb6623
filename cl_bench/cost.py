"""The cost record: what one step and one learner take, before anything has run."""

from typing import Any

import jax
import numpy as np

from cl_bench.execute import Program
from cl_bench.runner import Run
from cl_bench.types import PyTree

FIELDS = ("flops_per_step", "bytes_per_step", "parameters", "learner_bytes")


def measure(run: Run, program: Program) -> dict[str, float | int | None]:
    """XLA's count for one step of one lane, and the sizes of one learner.

    The step is neither scanned nor vmapped: XLA counts a scan's body once, whatever its
    length. FLOPs and bytes are XLA's estimates before optimisation, None where it gives
    none; `learner_bytes` is all that the method carries, `parameters` its network's.
    """
    seed, hyper = jax.tree.map(_one_lane, tuple(program.lanes))
    data = jax.tree.map(_shape, program.data)
    carry = jax.eval_shape(run.init, data, seed, hyper)
    counted = jax.jit(run.step).lower(data, seed, hyper, carry).cost_analysis() or {}
    return {
        "flops_per_step": counted.get("flops"),
        "bytes_per_step": counted.get("bytes accessed"),
        "parameters": sum(
            leaf.size for leaf in jax.tree.leaves(carry.learner.net.params)
        ),
        "learner_bytes": size_in_bytes(carry.learner),
    }


def known(facts: dict[str, Any]) -> dict[str, Any] | None:
    """The cost record that an earlier write of group.json holds."""
    found = {k: facts[k] for k in FIELDS if k in facts}
    return found if len(found) == len(FIELDS) else None


def size_in_bytes(tree: PyTree) -> int:
    """Bytes of every array (or shape) of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)


def _one_lane(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
