"""A small quadratic programme with nonnegative unknowns, solved exactly."""

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import linalg

TOLERANCE = 1e-6  # of float32 products, relative to the problem's own size


def solve(p: Array, c: Array) -> Array:
    """argmin_w 1/2 w^T P w + c^T w subject to w >= 0, P [n, n] positive definite.

    Block principal pivoting (Judice and Pires 1994; Kim and Park, SIAM J. Sci. Comput.
    33 (2011) 3261-3281, Algorithm 1): guess which w are free, solve for them with the
    others at 0, and exchange those with w < 0 or a negative multiplier y = P w + c.
    Exchanging all of them is fast and nearly always ends in a few rounds; where three
    rounds do not lower their number, only the last of them is exchanged (Murty 1974),
    which always ends.
    """
    n = len(c)
    # Unknowns in units of their own curvature: one tolerance then serves for all.
    scale = jax.lax.rsqrt(jnp.maximum(jnp.diagonal(p), 1e-30))
    scaled, linear = p * scale[:, None] * scale, c * scale

    def wrong(free: Array) -> Array:
        w = _with_free(scaled, linear, free)
        y = jnp.matmul(scaled, w, precision=jax.lax.Precision.HIGHEST) + linear
        small = TOLERANCE * (jnp.max(jnp.abs(linear)) + jnp.max(jnp.abs(w)))
        return jnp.where(free, w < -small, y < -small)

    def go_on(running: tuple) -> Array:
        _, bad, _, _, rounds = running
        return jnp.any(bad) & (rounds < 10 * n)

    def exchange(running: tuple) -> tuple:
        free, bad, fewest, tries, rounds = running
        count = jnp.sum(bad)
        tries = jnp.where(count < fewest, 3, tries - 1)
        last = jnp.arange(n) == n - 1 - jnp.argmax(bad[::-1])
        free = free ^ jnp.where(tries >= 0, bad, last)
        return free, wrong(free), jnp.minimum(fewest, count), tries, rounds + 1

    none = jnp.zeros(n, bool)
    first = (none, wrong(none), jnp.int32(n + 1), jnp.int32(3), jnp.int32(0))
    free = jax.lax.while_loop(go_on, exchange, first)[0]
    return jnp.maximum(_with_free(scaled, linear, free), 0.0) * scale


def _with_free(p: Array, c: Array, free: Array) -> Array:
    """The minimum over the free unknowns, the others at 0."""
    system = jnp.where(free[:, None] & free, p, jnp.eye(len(c)))
    return jnp.where(free, linalg.solve(system, jnp.where(free, -c, 0.0)), 0.0)
