"""Measures of task similarity, by hand and at their limits."""

import numpy as np
import pytest

from cl_bench.report import similarity as sim

RNG = np.random.default_rng(0)


def test_fisher_overlap_by_hand():
    # Shares (.25, .75) and (.75, .25): roots (.5, .866) and (.866, .5).
    gap = 0.5 * 2 * (np.sqrt(0.75) - 0.5) ** 2
    assert sim.fisher_overlap([1, 3], [6, 2]) == pytest.approx(1 - gap)
    assert sim.fisher_overlap([1, 0], [0, 5]) == pytest.approx(0)
    assert sim.fisher_overlap([1, 3], [10, 30]) == pytest.approx(1)
    assert np.isnan(sim.fisher_overlap([0, 0], [1, 1]))
    many = sim.fisher_overlap([[1, 3], [1, 0]], [[6, 2], [0, 5]])
    np.testing.assert_allclose(many, [1 - gap, 0], atol=1e-12)
    with pytest.raises(ValueError, match="below 0"):
        sim.fisher_overlap([1, -1], [1, 1])


def test_gradient_cosine_by_hand():
    assert sim.gradient_cosine([3, 4], [4, 3]) == pytest.approx(24 / 25)
    assert sim.gradient_cosine([1, 2], [-2, -4]) == pytest.approx(-1)
    assert sim.gradient_cosine([1, 0], [0, 1]) == 0
    assert np.isnan(sim.gradient_cosine([0, 0], [1, 1]))


def test_linear_cka_by_hand():
    # Centred: x = (-1, 0, 1), y = (-1, 1, 0); x'y = 1, x'x = y'y = 2.
    x, y = np.array([[1.0], [2.0], [3.0]]), np.array([[0.0], [2.0], [1.0]])
    assert sim.linear_cka(x, y) == pytest.approx(1 / 4)
    assert np.isnan(sim.linear_cka(x, np.ones((3, 1))))
    with pytest.raises(ValueError, match="same n examples"):
        sim.linear_cka(x, y[:2])


def test_linear_cka_does_not_see_rotation_scale_and_shift():
    x, y = RNG.normal(size=(2, 20, 4))
    rotation = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    assert sim.linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    assert sim.linear_cka(x, y) == pytest.approx(sim.linear_cka(x @ rotation, y))
    assert 0 < sim.linear_cka(x, y) < 0.7
    stretched = x * np.array([10.0, 1, 1, 1])
    assert sim.linear_cka(x, stretched) < 0.9


def test_subspace_overlap_by_hand():
    e = np.eye(4)
    assert sim.subspace_overlap(e[:, :2], e[:, 2:]) == 0
    assert sim.subspace_overlap(e[:, :2], e[:, 1:4]) == pytest.approx(1 / 2)
    assert sim.subspace_overlap(e[:, :1], e[:, :3]) == 1  # it lies inside
    tilted = np.array([[0.6], [0.0], [0.8], [0.0]])
    assert sim.subspace_overlap(e[:, :2], tilted) == pytest.approx(0.36)


def test_input_basis_by_hand():
    # Energies 9, 4, 1 of 14 along the axes.
    inputs = np.diag([1.0, 3.0, 2.0])
    for threshold, axes in ((0.6, [1]), (0.9, [1, 2]), (1.0, [1, 2, 0])):
        basis = sim.input_basis(inputs, threshold)
        np.testing.assert_allclose(np.abs(basis), np.eye(3)[:, axes], atol=1e-12)
    with pytest.raises(ValueError, match="threshold=0"):
        sim.input_basis(inputs, 0.0)


def test_a_basis_of_low_rank_inputs_spans_them():
    inputs = RNG.normal(size=(30, 2)) @ RNG.normal(size=(2, 6))
    basis = sim.input_basis(inputs, 1.0)
    assert basis.shape == (6, 2)
    np.testing.assert_allclose(inputs @ basis @ basis.T, inputs, atol=1e-9)


def test_overlap_falls_with_the_share_of_permuted_inputs():
    """The controlled fraction of a permuted stream is the ground truth."""
    inputs = RNG.uniform(size=(60, 3)) @ RNG.uniform(size=(3, 40)) + 0.01
    found = []
    for share in (0, 10, 20, 40):
        order = np.arange(40)
        order[:share] = np.random.default_rng(1).permutation(share)
        bases = (sim.input_basis(x, 0.999) for x in (inputs, inputs[:, order]))
        found.append(sim.subspace_overlap(*bases))
    assert found[0] == pytest.approx(1) and found == sorted(found, reverse=True)
    assert found[-1] < 0.8
