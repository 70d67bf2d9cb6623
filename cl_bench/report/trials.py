"""What a score costs to find: the best of so many settings, by how many."""

import math
from typing import NamedTuple

import numpy as np

from cl_bench import stats
from cl_bench.report import charges
from cl_bench.report.blocks import Blocks, in_blocks
from cl_bench.report.panels import Arm, Panel
from cl_bench.report.scores import by_seed, families, final_scores, lower_is_better
from cl_bench.report.summary import cost
from cl_bench.stats import Band, Floats

FEWEST = 3  # settings of a method, below which there is nothing to plot


class Trials(NamedTuple):
    """One method's settings on one benchmark; intervals are over seeds."""

    study: str
    method: str  # its family's name
    settings: int  # N, how many there are
    score: Band  # [N] expected score over the last tenth after 1 ... N trials
    curves: dict[int, Band]  # number of trials -> expected curve, as `Arm.drawn`
    blocks: Blocks  # the points of those curves
    charged: dict[str, float | None]  # the largest of its settings, of each run


def of(panel: Panel) -> list[Trials]:
    """For every method of a study with at least `FEWEST` settings, in order."""
    if panel.score is None:
        return []
    found = []
    for (_, method), arms in families(panel.arms).items():
        places: dict[str, list[Arm]] = {}
        for arm in arms:
            places.setdefault(_place(arm), []).append(arm)
        found += [_of_family(panel, method, same) for same in places.values()]
    return [one for one in found if one is not None]


def _place(arm: Arm) -> str:
    """Stream and network: settings of the benchmark, which no trial chooses."""
    own = {
        k: v for k, v in arm.settings.items() if k.startswith(("stream.", "network."))
    }
    return repr(sorted(own.items(), key=lambda item: item[0]))


def _of_family(panel: Panel, method: str, arms: list[Arm]) -> Trials | None:
    per_arm = [by_seed(arm, final_scores(panel, arm)) for arm in arms]
    seeds = sorted(set.intersection(*(set(scores) for scores in per_arm)))
    if len(arms) < FEWEST or not seeds:
        return None
    scores = np.array([[own[seed] for seed in seeds] for own in per_arm])  # [N, S]
    curves = np.stack(
        [arm.curves[panel.score or ""][_rows(arm, seeds)] for arm in arms]
    )  # [N, S, tasks]
    higher = not lower_is_better(panel)
    after = np.stack([expected(scores, scores, b, higher) for b in _upto(arms)], axis=1)
    drawn, points = {}, arms[0].blocks  # of one stream: the same in all arms
    for budget in budgets(len(arms)):
        means = expected(scores, curves, budget, higher)
        drawn[budget] = stats.band(in_blocks(means, points.size))
    charged = charges.largest([cost(arm) for arm in arms])
    score = stats.band(after)
    return Trials(arms[0].study, method, len(arms), score, drawn, points, charged)


def _upto(arms: list[Arm]) -> range:
    return range(1, len(arms) + 1)


def _rows(arm: Arm, seeds: list[int]) -> list[int]:
    return [arm.seeds.index(seed) for seed in seeds]


def budgets(settings: int) -> list[int]:
    """1, 3, 9, ... and all."""
    powers = [3**k for k in range(int(math.log(settings, 3) + 1e-9) + 1)]
    return sorted({*powers, settings})


def weights(settings: int, trials: int) -> Floats:
    """[N] probability that the setting of rank i (0: best) is the best of the trials.

    C(N - 1 - i, B - 1) / C(N, B) for B trials drawn without replacement.
    Source: Tang et al. 2020 (ACL), the unbiased form of Dodge et al. 2019.
    """
    ways = math.comb(settings, trials)
    return np.array(
        [math.comb(settings - 1 - i, trials - 1) / ways for i in range(settings)]
    )


def expected(scores: Floats, values: Floats, trials: int, higher: bool) -> Floats:
    """Expected value, on each seed, of the setting chosen after `trials` on the others.

    scores are [N, S], values [N, S, ...], the result is [S, ...]. A setting is chosen by
    its mean score on the other seeds, so that a lucky run does not choose itself; of a
    single seed, on that. Settings of equal score share their weight.
    """
    number, seeds = scores.shape
    odds = weights(number, trials)
    found = np.empty(values.shape[1:])
    for seed in range(seeds):
        others = np.delete(scores, seed, axis=1) if seeds > 1 else scores
        chosen_by = others.mean(axis=1) * (1.0 if higher else -1.0)
        _, rank = np.unique(-chosen_by, return_inverse=True)
        order = np.argsort(-chosen_by, kind="stable")
        shared = np.bincount(rank, odds[np.argsort(order)]) / np.bincount(rank)
        found[seed] = np.tensordot(shared[rank], values[:, seed], 1)
    return found
