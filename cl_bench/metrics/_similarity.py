"""How alike two tasks are, inside a compiled run: static shapes, one network at a time.

The definitions are those of `report.similarity`, which the tests hold these to. Here a
basis has as many columns as there can be directions, those beyond its own being 0, and
what a task leaves behind is kept in the form in which it is compared: roots of Fisher
shares, centred features, bases.
"""

import jax.numpy as jnp
from jax import Array

from cl_bench import linalg

ROUNDING = 1e-6  # of float32 in a sum of energies
RIDGE = 1e-3  # of the features' mean variance


def root_of_share(fisher: Array) -> Array:
    """sqrt(F / tr F) of a diagonal Fisher information [P]; NaN where it is 0."""
    return jnp.sqrt(fisher / jnp.sum(fisher))


def fisher_overlap(root_i: Array, root_j: Array) -> Array:
    """1 - 1/2 sum of (sqrt f_i - sqrt f_j)^2, of two roots of shares [P].

    Source: Kirkpatrick et al. 2017 (EWC), appendix, with the diagonal of F.
    """
    return 1.0 - 0.5 * jnp.sum(jnp.square(root_i - root_j))


def gradient_cosines(gradients: Array) -> Array:
    """Cosines [T, T] of gradients [T, P]; NaN where one is 0."""
    unit = gradients / jnp.linalg.norm(gradients, axis=1, keepdims=True)
    return unit @ unit.T


def centred(features: Array, weight: Array) -> Array:
    """Features [n, d] minus their mean; examples of `weight` 0 do not count: 0."""
    counts = (weight > 0.0)[:, None]
    features = jnp.where(counts, features, 0.0)
    mean = jnp.sum(features, axis=0) / jnp.sum(counts)
    return jnp.where(counts, features - mean, 0.0)


def linear_cka(a: Array, b: Array) -> Array:
    """|b'a|^2 / (|a'a| |b'b|) of centred features [n, d] of the same n examples.

    Source: Kornblith et al. 2019, eq. 4 with linear kernels.
    """
    own = jnp.linalg.norm(a.T @ a) * jnp.linalg.norm(b.T @ b)
    return jnp.sum(jnp.square(b.T @ a)) / own


def input_basis(inputs: Array, threshold: float) -> Array:
    """Basis [d, min(n, d)] of the fewest directions with `threshold` of the energy.

    `inputs` is [n, d], not centred; columns beyond those directions are 0. NaN for an
    input that is not finite: LAPACK itself may not come back from one.
    Source: Saha et al. 2021 (GPM), eq. 5, of one task alone.
    """
    largest = jnp.max(jnp.abs(inputs))
    finite = jnp.isfinite(largest)
    scale = jnp.where(finite & (largest > 0.0), largest, 1.0)
    scaled = jnp.where(finite, inputs / scale, 0.0)
    _, sigma, rows = linalg.svd(scaled)
    energy = jnp.square(sigma)
    before = jnp.cumsum(energy) - energy
    enough = threshold * (1.0 - ROUNDING) * jnp.sum(energy)
    basis = jnp.where(before < enough, rows.T, 0.0)
    return jnp.where(finite, basis, jnp.nan)


def subspace_overlap(basis_i: Array, basis_j: Array) -> Array:
    """|M_i' M_j|^2 / min(k_i, k_j) of bases [d, r], k their columns that are not 0.

    NaN for a basis without any.
    """
    k_i, k_j = (jnp.sum(jnp.any(m != 0.0, axis=0)) for m in (basis_i, basis_j))
    return jnp.sum(jnp.square(basis_i.T @ basis_j)) / jnp.minimum(k_i, k_j)


def probe_outputs(features: Array, targets: Array, weight: Array) -> Array:
    """Outputs [n, K] of a linear probe on features [n, d], fitted under `weight` [n].

    Ridge regression to the targets [n, K], features and targets centred: the probe has
    a bias, which is not penalised. The penalty is `RIDGE` times the mean variance of a
    feature, so that the scale of the features does not matter.
    """
    share = weight / jnp.sum(weight)
    x = features - share @ features
    y = targets - share @ targets
    covariance = (share[:, None] * x).T @ x
    size = len(covariance)
    ridge = jnp.maximum(RIDGE * jnp.trace(covariance) / size, 1e-12)
    penalised = covariance + ridge * jnp.eye(size)
    kernel = linalg.solve(penalised, (share[:, None] * x).T @ y)
    return x @ kernel + share @ targets
