"""Statistics against scipy and hand-worked numbers."""

import chex
import numpy as np
import pytest
from scipy import stats as scipy_stats

from cl_bench import stats

SCORES = np.array([0.31, 0.42, 0.45, 0.5, 0.57, 0.61, 0.66, 0.9])


def test_iqm_by_hand_and_as_scipy():
    # 8 values: the two lowest and the two highest are cut.
    assert stats.iqm(SCORES) == pytest.approx((0.45 + 0.5 + 0.57 + 0.61) / 4)
    odd = np.random.default_rng(1).normal(size=(5, 7))
    chex.assert_trees_all_close(
        stats.iqm(odd), scipy_stats.trim_mean(odd, 0.25, axis=-1)
    )


def test_bootstrap_agrees_with_scipy():
    ours = stats.bootstrap(SCORES, reps=20_000)
    theirs = scipy_stats.bootstrap(
        (SCORES,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert ours.estimate == pytest.approx(SCORES.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.004)
    assert ours.high == pytest.approx(theirs.high, abs=0.004)


def test_bootstrap_of_iqm_agrees_with_scipy():
    # 40 scores: with 8, the resampled values sit on a coarse lattice.
    scores = np.random.default_rng(2).uniform(size=40)
    ours = stats.bootstrap(scores, stats.iqm, reps=20_000)
    theirs = scipy_stats.bootstrap(
        (scores,),
        lambda x, axis: scipy_stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=20_000,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.005)
    assert ours.high == pytest.approx(theirs.high, abs=0.005)


def test_bootstrap_exact_for_two_runs():
    # Resampled means of (0, 1) are 0, 1/2, 1 with probability 1/4, 1/2, 1/4.
    assert stats.bootstrap([0.0, 1.0]) == (0.5, 0.0, 1.0)
    half = stats.bootstrap([0.0, 1.0], level=0.4)  # both tails inside the middle mass
    assert half == (0.5, 0.5, 0.5)


def test_stratified_keeps_benchmarks_apart():
    # Between benchmarks there is a gulf, within each no spread: a bootstrap that
    # mixed them would have a wide interval.
    apart = np.array([[0.1, 0.9]] * 6)
    assert stats.bootstrap(apart) == pytest.approx((0.5, 0.5, 0.5))
    mixed = stats.bootstrap(apart.ravel())
    assert mixed.high - mixed.low > 0.3


def test_stratified_interval_has_the_right_width():
    # Mean of k independent benchmarks: the standard error is 1 / sqrt(runs * k).
    scores = np.random.default_rng(0).normal(size=(200, 4))
    found = stats.bootstrap(scores)
    assert (found.high - found.low) / 2 == pytest.approx(
        1.96 / np.sqrt(800) * scores.std(axis=0).mean(), rel=0.06
    )


def test_unequal_numbers_of_runs():
    found = stats.bootstrap([np.array([1.0, 1.0, 1.0]), np.array([5.0])])
    assert found == pytest.approx((2.0, 2.0, 2.0))


def test_seeded_and_independent_of_the_global_generator():
    np.random.seed(0)
    first = stats.bootstrap(SCORES)
    np.random.seed(1)
    assert stats.bootstrap(SCORES) == first
    assert stats.bootstrap(SCORES, seed=1) != first


def test_one_run_has_no_interval():
    found = stats.bootstrap([0.7])
    assert found.estimate == 0.7
    assert np.isnan(found.low) and np.isnan(found.high)
    found = stats.band([[0.7, 0.8]])
    chex.assert_trees_all_close(found.estimate, np.array([0.7, 0.8]))
    assert np.isnan(found.low).all() and np.isnan(found.high).all()
    assert np.isnan(stats.bootstrap([]).estimate)


def test_diverged_counts_as_worst_and_is_never_dropped():
    filled = stats.count_diverged([0.8, np.nan, np.inf, 0.1], worst=0.0)
    chex.assert_trees_all_equal(filled, np.array([0.8, 0.0, 0.0, 0.1]))
    flagged = stats.count_diverged([0.8, 0.1], [False, True], worst=-1.0)
    chex.assert_trees_all_equal(flagged, np.array([0.8, -1.0]))
    with pytest.raises(ValueError, match="count_diverged"):
        stats.bootstrap([0.8, np.nan])


def test_band_is_the_bootstrap_at_each_task():
    curves = np.random.default_rng(3).normal(size=(9, 4))
    found = stats.band(curves, reps=20_000)
    for task in range(4):
        one = stats.bootstrap(curves[:, task], reps=20_000, seed=5)
        assert found.estimate[task] == pytest.approx(one.estimate)
        assert found.low[task] == pytest.approx(one.low, abs=0.03)
        assert found.high[task] == pytest.approx(one.high, abs=0.03)


def test_band_resamples_whole_runs():
    # Two runs that mirror each other: their sum is 0 at every task in every resample
    # only if a run is drawn with all of its tasks.
    rise = np.array([[0.0, 1.0], [1.0, 0.0]])
    found = stats.band(np.concatenate([rise, rise.sum(axis=1, keepdims=True)], axis=1))
    assert found.low[2] == found.high[2] == 1.0


def test_band_leaves_out_what_was_not_measured():
    curves = [[0.2, np.nan, np.nan], [0.4, 0.6, np.nan], [0.6, 0.8, 0.9]]
    found = stats.band(curves)
    chex.assert_trees_all_close(found.estimate, np.array([0.4, 0.7, 0.9]))
    chex.assert_trees_all_equal(found.n, np.array([3, 2, 1]))
    assert found.low[1] == pytest.approx(0.6) and found.high[1] == pytest.approx(0.8)
    assert np.isnan(found.low[2])
    nothing = stats.band(np.full((2, 1), np.nan))
    assert np.isnan(nothing.estimate).all()


def test_pairing_removes_what_seeds_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=10)
    baseline = {s: shared[s] for s in range(10)}
    ours = {s: shared[s] + 0.1 for s in range(2, 12 - 2)}
    gaps = stats.paired_differences(ours, baseline)
    chex.assert_trees_all_close(gaps, np.full(8, 0.1))
    assert stats.bootstrap(gaps) == pytest.approx((0.1, 0.1, 0.1))


def test_pairing_needs_shared_seeds():
    gaps = stats.paired_differences({3: 1.0}, {4: 1.0})
    assert gaps.shape == (0,)
    assert np.isnan(stats.bootstrap(gaps).estimate)


def test_probability_of_improvement_by_hand_and_as_mann_whitney():
    # (1, 2) against (1, 0): one tie, three wins of four pairs.
    assert stats.probability_of_improvement([1.0, 2.0], [1.0, 0.0]).estimate == 0.875
    x, y = SCORES, SCORES[::2] - 0.07
    u = scipy_stats.mannwhitneyu(x, y).statistic / (len(x) * len(y))
    found = stats.probability_of_improvement(x, y)
    assert found.estimate == pytest.approx(u)
    assert found.low <= found.estimate <= found.high
    assert stats.probability_of_improvement(x, x).estimate == 0.5


def test_probability_of_improvement_averages_benchmarks():
    won, lost = np.array([[1.0, 0.0]] * 3), np.array([[0.0, 1.0]] * 3)
    assert stats.probability_of_improvement(won, lost) == pytest.approx((0.5,) * 3)
