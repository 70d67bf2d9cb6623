"""Gaussian noise for every parameter: exact, or pooled from one shared table.

Exact threefry noise costs tens of times the batch-1 step it perturbs. Pooled noise
reads blocks of a fixed table of N(0, 1) numbers at random offsets with random signs:
the marginals are those of the table; numbers within a block are independent, and
blocks of different steps overlap. A result names which of the two it used.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.types import Key, PyTree

KINDS = ("exact", "pooled")
TABLE = 2**18  # numbers in the table: 1 MiB
BLOCK = TABLE // 2  # longest run read at one offset


@cache
def _table() -> np.ndarray:
    """N(0, 1) numbers, shifted and scaled to mean 0 and variance 1 exactly."""
    table = np.random.default_rng(20240821).standard_normal(TABLE)
    return ((table - table.mean()) / table.std()).astype(np.float32)


def normal_like(key: Key, tree: PyTree, kind: str) -> PyTree:
    """A tree of N(0, 1) numbers shaped like `tree`.

    Raises ValueError where `kind` is neither 'exact' nor 'pooled'.
    """
    if kind not in KINDS:
        raise ValueError(f"noise {kind!r} is none of {KINDS}")
    draw = _exact if kind == "exact" else _pooled
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, draw(key, leaves))


def _exact(key: Key, leaves: list[Array]) -> list[Array]:
    keys = jax.random.split(key, len(leaves))
    return [
        jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)
    ]


def _pooled(key: Key, leaves: list[Array]) -> list[Array]:
    table = jnp.asarray(_table())
    blocks = [-(-leaf.size // BLOCK) for leaf in leaves]
    bits = jax.random.bits(key, (sum(blocks),), jnp.uint32)
    signs = jnp.where(bits >> 31 == 0, 1.0, -1.0)
    draws, at = [], 0
    for leaf, count in zip(leaves, blocks, strict=True):
        size = min(leaf.size, BLOCK)
        starts = (bits[at : at + count] & 0x7FFFFFFF) % (TABLE - size)
        rows = [
            signs[at + j] * jax.lax.dynamic_slice(table, (starts[j],), (size,))
            for j in range(count)
        ]
        flat = rows[0] if count == 1 else jnp.concatenate(rows)[: leaf.size]
        draws.append(flat.reshape(leaf.shape))
        at += count
    return draws
