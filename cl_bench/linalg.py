"""Decompositions and linear systems that come back under vmap, on a CPU too.

jaxlib shares a batch of LAPACK calls out over XLA's threads and waits in one of them
(`ParallelBatchMap`, seen with 0.10.2). Two programs side by side on as many devices as
there are threads then wait for each other for ever: a study of vmapped lanes on two
cores hung at its first singular value decomposition. So on a CPU a batch is a loop.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def singular_values(matrix: Array) -> Array:
    """Singular values [min(n, m)] of a matrix [n, m], largest first."""
    return _one_by_one(_singular_values, matrix)


def svd(matrix: Array) -> tuple[Array, Array, Array]:
    """u [n, r], s [r] and v' [r, m] of a matrix [n, m] = u diag(s) v', r = min(n, m)."""
    return _one_by_one(_svd, matrix)


def solve(system: Array, right: Array) -> Array:
    """x of system x = right, for a matrix [n, n] and a vector [n] or a matrix [n, k]."""
    return _one_by_one(_solve, system, right)


def inverse(matrix: Array) -> Array:
    """The inverse [n, n] of a matrix [n, n]."""
    return _one_by_one(_inverse, matrix)


def _one_by_one(function: Callable[..., Any], *arguments: Array) -> Any:
    if jax.default_backend() == "cpu":
        function = jax.custom_batching.sequential_vmap(function)
    return function(*arguments)


def _singular_values(matrix: Array) -> Array:
    return jnp.linalg.svd(matrix, full_matrices=False, compute_uv=False)


def _svd(matrix: Array) -> tuple[Array, Array, Array]:
    u, s, rows = jnp.linalg.svd(matrix, full_matrices=False)
    return u, s, rows


def _inverse(matrix: Array) -> Array:
    return jnp.linalg.inv(matrix)


def _solve(system: Array, right: Array) -> Array:
    return jnp.linalg.solve(system, right)
