"""Gaussian noise for every parameter: exact, or pooled from one shared table.

Exact threefry noise costs tens of times the batch-1 step it perturbs. Pooled noise
reads runs of a fixed table of N(0, 1) numbers at random offsets with random signs:
the marginals are those of the table; numbers within a run are independent, and runs of
different steps overlap. A result names which of the two it used.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.types import Key, PyTree

KINDS = ("exact", "pooled")
TABLE = 2**18  # numbers in the smallest table: 1 MiB
LARGEST_TABLE = 2**24  # 64 MiB


@cache
def _table(numbers: int) -> np.ndarray:
    """N(0, 1) numbers, shifted and scaled to mean 0 and variance 1 exactly."""
    table = np.random.default_rng(20240821).standard_normal(numbers)
    return ((table - table.mean()) / table.std()).astype(np.float32)


def table_size(leaf: int) -> int:
    """Numbers in the table that a leaf of this size reads: a power of 2.

    Twice the leaf where that is within bounds, so that one run covers it: XLA fuses a
    concatenation of several runs entry by entry, at many times the cost of reading them.
    """
    wanted = 1 << (2 * leaf - 1).bit_length()
    return min(max(wanted, TABLE), LARGEST_TABLE)


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
    tables = [table_size(leaf.size) for leaf in leaves]
    runs = [-(-leaf.size // (n // 2)) for leaf, n in zip(leaves, tables, strict=True)]
    bits = jax.random.bits(key, (sum(runs),), jnp.uint32)
    signs = jnp.where(bits >> 31 == 0, 1.0, -1.0)
    draws, at = [], 0
    for leaf, numbers, count in zip(leaves, tables, runs, strict=True):
        table, size = jnp.asarray(_table(numbers)), min(leaf.size, numbers // 2)
        starts = (bits[at : at + count] & 0x7FFFFFFF) % (numbers - size)
        rows = [
            signs[at + j] * jax.lax.dynamic_slice(table, (starts[j],), (size,))
            for j in range(count)
        ]
        flat = rows[0] if count == 1 else jnp.concatenate(rows)[: leaf.size]
        draws.append(flat.reshape(leaf.shape))
        at += count
    return draws
