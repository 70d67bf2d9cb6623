"""The measures of task similarity in JAX, against those of the report."""

import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.metrics import _similarity
from cl_bench.report import similarity as oracle

RNG = np.random.default_rng(0)


def test_fisher_overlap_and_cosines():
    fishers = np.square(RNG.normal(size=(3, 50)))
    roots = [_similarity.root_of_share(jnp.asarray(f)) for f in fishers]
    found = [_similarity.fisher_overlap(roots[0], roots[k]) for k in (0, 1, 2)]
    wanted = oracle.fisher_overlap(fishers[:1], fishers)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    gradients = np.concatenate([RNG.normal(size=(3, 50)), np.zeros((1, 50))])
    cosines = _similarity.gradient_cosines(jnp.asarray(gradients))
    for i in range(4):
        wanted = oracle.gradient_cosine(gradients[i], gradients)
        np.testing.assert_allclose(cosines[i], wanted, rtol=1e-5, atol=1e-6)


def test_linear_cka_leaves_out_what_has_no_weight():
    x, y = RNG.normal(size=(2, 30, 4)) + 1.0
    weight = (RNG.uniform(size=30) < 0.7).astype(np.float32)
    a, b = (_similarity.centred(jnp.asarray(v), jnp.asarray(weight)) for v in (x, y))
    wanted = oracle.linear_cka(x[weight > 0], y[weight > 0])
    np.testing.assert_allclose(_similarity.linear_cka(a, b), wanted, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.97, 1.0])
def test_bases_of_a_static_size(threshold):
    scale = np.geomspace(1.0, 0.1, 8)
    x, y = RNG.normal(size=(2, 20, 8)) * scale
    bases = [_similarity.input_basis(jnp.asarray(v), threshold) for v in (x, y)]
    wanted = [oracle.input_basis(v, threshold) for v in (x, y)]
    for basis, own in zip(bases, wanted, strict=True):
        assert basis.shape == (8, 8)
        spans = np.asarray(basis @ basis.T)
        np.testing.assert_allclose(spans, own @ own.T, rtol=1e-5, atol=1e-5)
    found = _similarity.subspace_overlap(*bases)
    np.testing.assert_allclose(found, oracle.subspace_overlap(*wanted), rtol=1e-5)


def test_bases_of_inputs_that_are_huge_not_finite_or_nothing():
    x = RNG.normal(size=(20, 8)).astype(np.float32)
    small, huge = (_similarity.input_basis(jnp.asarray(x * k), 0.9) for k in (1, 1e30))
    assert float(_similarity.subspace_overlap(small, huge)) == pytest.approx(1.0)
    broken = _similarity.input_basis(jnp.asarray(x).at[3, 2].set(jnp.inf), 0.9)
    nothing = _similarity.input_basis(jnp.zeros((20, 8)), 0.9)
    for basis in (broken, nothing):
        assert np.isnan(_similarity.subspace_overlap(small, basis))


def test_a_probe_is_ridge_regression_of_what_has_weight():
    x, y = 3.0 * RNG.normal(size=(40, 5)) + 2.0, RNG.normal(size=(40, 3))
    weight = (np.arange(40) % 2).astype(np.float32)
    found = _similarity.probe_outputs(*map(jnp.asarray, (x, y, weight)))
    fit_x, fit_y = x[1::2], y[1::2]
    mean, target = fit_x.mean(0), fit_y.mean(0)
    ridge = _similarity.RIDGE * np.mean(fit_x.var(0)) * len(fit_x)
    gram = (fit_x - mean).T @ (fit_x - mean) + ridge * np.eye(5)
    kernel = np.linalg.solve(gram, (fit_x - mean).T @ (fit_y - target))
    np.testing.assert_allclose(found, (x - mean) @ kernel + target, 1e-4, 1e-4)
