"""Statistics over seeds: means, IQM, bootstrap intervals, paired comparisons.

Plain numpy, no side effects. A *score* is one number of one run; the run (seed) is
the unit that is resampled, because the tasks of one run are not independent.
Aggregates over several benchmarks are stratified: runs are resampled within each
benchmark, as in Agarwal et al. (2021), "Deep RL at the Edge of the Statistical
Precipice" (rliable), with an explicit generator.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
K = TypeVar("K", bound=Hashable)
Statistic = Callable[[Floats], Floats]  # [..., N] -> [...]


class Interval(NamedTuple):
    """An estimate and its interval; (nan, nan) where one run cannot give one."""

    estimate: float
    low: float
    high: float


class Band(NamedTuple):
    """A mean curve and its pointwise interval, each [tasks]; `n` counts the runs."""

    estimate: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]


def mean(scores: ArrayLike) -> Floats:
    """Mean over the last axis."""
    return np.mean(np.asarray(scores, dtype=np.float64), axis=-1)


def iqm(scores: ArrayLike) -> Floats:
    """Interquartile mean over the last axis: a quarter is cut off at either end.

    `floor(N / 4)` values are cut at each end, as `scipy.stats.trim_mean` and rliable.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    n = values.shape[-1]
    cut = n // 4
    return np.mean(values[..., cut : n - cut], axis=-1)


def count_diverged(
    scores: ArrayLike, diverged: ArrayLike | None = None, *, worst: float
) -> Floats:
    """Scores with every diverged entry at the worst score: it is never dropped.

    Args:
      scores: any shape; an entry that is not finite is a diverged one.
      diverged: same shape, bool; further diverged entries (an arg-max over NaN
        logits still yields a finite accuracy). None: only non-finite entries.
      worst: the score of a diverged entry, for example 0 for an accuracy.
    """
    values = np.asarray(scores, dtype=np.float64)
    bad = ~np.isfinite(values)
    if diverged is not None:
        bad |= np.asarray(diverged, dtype=bool)
    return np.where(bad, worst, values)


def _strata(scores: ArrayLike | Sequence[ArrayLike]) -> list[Floats]:
    if isinstance(scores, Sequence) and scores and np.ndim(scores[0]) == 1:
        return [np.asarray(s, dtype=np.float64) for s in scores]
    values = np.asarray(scores, dtype=np.float64)
    return [values] if values.ndim == 1 else list(values.T)


def _check_finite(strata: list[Floats]) -> None:
    if not all(np.all(np.isfinite(s)) for s in strata):
        raise ValueError(
            "A score is not finite: pass diverged runs through "
            "count_diverged(scores, worst=...) first, so that they are not dropped."
        )


def _resampled(strata: list[Floats], reps: int, rng: np.random.Generator) -> Floats:
    """[reps, N]: every stratum resampled with replacement within itself."""
    drawn = [s[rng.integers(len(s), size=(reps, len(s)))] for s in strata]
    return np.concatenate(drawn, axis=-1)


def _percentiles(values: Floats, level: float) -> tuple[Floats, Floats]:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail], axis=0)
    return low, high


def bootstrap(
    scores: ArrayLike | Sequence[ArrayLike],
    statistic: Statistic = mean,
    *,
    level: float = 0.95,
    reps: int = 5_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic, stratified over benchmarks.

    Args:
      scores: [runs], or [runs, benchmarks], or one [runs] vector per benchmark where
        benchmarks have unequal numbers of runs; finite.
      statistic: of all scores together, over the last axis: `mean` or `iqm`.
      level: coverage of the interval.
      reps: number of resamples.
      seed: of the resampling.

    Returns: the statistic of the scores and its interval; (nan, nan) as bounds where
    no benchmark has two runs, and an estimate of nan where there are no scores.

    Raises ValueError on scores that are not finite.
    """
    strata = _strata(scores)
    _check_finite(strata)
    if not any(len(s) for s in strata):
        return Interval(np.nan, np.nan, np.nan)
    estimate = float(statistic(np.concatenate(strata)))
    if all(len(s) < 2 for s in strata):
        return Interval(estimate, np.nan, np.nan)
    strata = [s for s in strata if len(s)]
    values = statistic(_resampled(strata, reps, np.random.default_rng(seed)))
    low, high = _percentiles(values, level)
    return Interval(estimate, float(low), float(high))


def band(
    curves: ArrayLike, *, level: float = 0.95, reps: int = 1_000, seed: int = 0
) -> Band:
    """Mean curve over runs with pointwise percentile bootstrap intervals.

    Args:
      curves: [runs, tasks]; NaN = not measured, left out at that task only (diverged
        scores go through `count_diverged` before).
      level, reps, seed: as in `bootstrap`. Whole runs are resampled.

    A task that fewer than two runs measured has bounds (nan, nan).
    """
    values = np.asarray(curves, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"curves must be [runs, tasks], not of shape {values.shape}.")
    runs, tasks = values.shape
    seen = np.isfinite(values)
    filled = np.where(seen, values, 0.0)
    n = seen.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = filled.sum(axis=0) / n
    low, high = np.full(tasks, np.nan), np.full(tasks, np.nan)
    wide = n >= 2
    if wide.any():
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(runs, np.full(runs, 1.0 / runs), size=reps)
        low[wide], high[wide] = _band(counts, filled[:, wide], seen[:, wide], level)
    return Band(estimate, low, high, n)


def _band(
    counts: NDArray[np.int64], filled: Floats, seen: NDArray[np.bool_], level: float
) -> tuple[Floats, Floats]:
    # einsum and not matmul: BLAS threads cost more than these small products, and
    # [tasks, reps] because a quantile over the contiguous axis is three times faster.
    weights = counts.astype(np.float64)  # [reps, runs]: how often each was drawn
    means = np.einsum("rt,br->tb", filled, weights)
    if seen.all():
        means /= len(filled)
    else:
        total = np.einsum("rt,br->tb", seen.astype(np.float64), weights)
        with np.errstate(invalid="ignore"):
            means /= np.where(total > 0, total, np.nan)
    tail = (1.0 - level) / 2.0
    quantile = np.quantile if seen.all() else np.nanquantile
    low, high = quantile(means, [tail, 1.0 - tail], axis=-1)
    return low, high


def paired_differences(
    scores: Mapping[K, float], baseline: Mapping[K, float]
) -> Floats:
    """scores - baseline over the seeds that both have, in sorted order.

    The same seed means the same tasks and initial weights, so the difference has less
    noise than either score. Keys are seeds, or (benchmark, seed).
    """
    shared = sorted(scores.keys() & baseline.keys(), key=repr)
    return np.array([scores[k] - baseline[k] for k in shared], dtype=np.float64)


def probability_of_improvement(
    scores: ArrayLike | Sequence[ArrayLike],
    baseline: ArrayLike | Sequence[ArrayLike],
    *,
    level: float = 0.95,
    reps: int = 2_000,
    seed: int = 0,
) -> Interval:
    """P(a run of `scores` > a run of `baseline`), ties one half, mean over benchmarks.

    Mann-Whitney U / (m n) per benchmark (Agarwal et al. 2021, section 4.2); both
    sides are resampled within each benchmark. Shapes as in `bootstrap`, with the
    same benchmarks in the same order.
    """
    ours, theirs = _strata(scores), _strata(baseline)
    _check_finite(ours + theirs)
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} benchmarks against {len(theirs)}.")
    estimate = float(np.mean([_wins(x, y) for x, y in zip(ours, theirs, strict=True)]))
    if all(len(s) < 2 for s in ours + theirs):
        return Interval(estimate, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    values = [
        _wins(_resampled([x], reps, rng), _resampled([y], reps, rng))
        for x, y in zip(ours, theirs, strict=True)
    ]
    low, high = _percentiles(np.mean(values, axis=0), level)
    return Interval(estimate, float(low), float(high))


def _wins(x: Floats, y: Floats) -> Floats:
    """[..., m], [..., n] -> [...]: the share of pairs that x wins."""
    gap = x[..., :, None] - y[..., None, :]
    return np.mean((np.sign(gap) + 1.0) / 2.0, axis=(-2, -1))
