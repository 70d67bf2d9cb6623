"""The best of so many trials: against every subset there is, and in the report."""

import itertools

import numpy as np
import pytest

from cl_bench import report
from cl_bench.report import panels, studies, trials
from tests.report_page import needs_extra, read_csv
from tests.report_setting import charge, make_study


def by_subsets(scores, values, budget, higher):
    """Every set of `budget` settings: choose on the other seeds, read this one."""
    sign = 1.0 if higher else -1.0
    found = []
    for seed in range(scores.shape[1]):
        others = [s for s in range(scores.shape[1]) if s != seed] or [seed]
        total = []
        for chosen in itertools.combinations(range(len(scores)), budget):
            quality = [sign * scores[n, others].mean() for n in chosen]
            ties = [
                n for n, q in zip(chosen, quality, strict=True) if q == max(quality)
            ]
            total.append(np.mean([values[n, seed] for n in ties]))
        found.append(np.mean(total))
    return np.array(found)


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("budget", [1, 2, 4, 5])
def test_expected_value_is_the_mean_over_all_sets_of_trials(budget, seeds, higher):
    rng = np.random.default_rng(seeds)
    scores, values = rng.normal(size=(2, 5, seeds))
    found = trials.expected(scores, values, budget, higher)
    np.testing.assert_allclose(found, by_subsets(scores, values, budget, higher))


def test_settings_of_equal_score_share_their_weight():
    scores = np.array([[1.0, 1.0], [2.0, 2.0], [2.0, 2.0], [0.0, 0.0]])
    values = np.arange(8.0).reshape(4, 2)
    for budget in (1, 2, 3, 4):
        found = trials.expected(scores, values, budget, True)
        np.testing.assert_allclose(found, by_subsets(scores, values, budget, True))


def test_weights_are_probabilities_and_end_at_the_best():
    for budget in range(1, 8):
        np.testing.assert_allclose(trials.weights(7, budget).sum(), 1.0)
    assert trials.weights(7, 7).tolist() == [1.0] + [0.0] * 6
    np.testing.assert_allclose(trials.weights(7, 1), 1 / 7)


def test_a_lucky_run_does_not_choose_itself():
    lucky = np.array([[9.0, 0.0], [1.0, 1.0], [0.0, 0.5]])
    assert trials.expected(lucky, lucky, 3, True).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "shown"), [(3, [1, 3]), (8, [1, 3, 8]), (27, [1, 3, 9, 27])]
)
def test_budgets(settings, shown):
    assert trials.budgets(settings) == shown


STRENGTHS = (0.0, 0.1, 0.2, 0.3)


def l2(strength):
    return "l2", {"strength": strength}, lambda task: 0.5 + strength + 0.01 * task


def study_of(folder, noise=0.0):
    arms = {f"l2 strength={s}": l2(s) for s in STRENGTHS}
    arms["backprop"] = ("backprop", {"step_size": 0.1}, lambda task: 0.4)
    return make_study(folder, arms=arms, tasks=4, noise=noise)


def test_the_report_says_what_the_settings_cost_to_find(tmp_path):
    (panel,) = panels.join([studies.load(study_of(tmp_path))])
    (found,) = trials.of(panel)  # backprop has one setting: nothing to find
    assert (found.method, found.settings) == ("l2", 4)
    # Over the last task, seeds 0, 1, 2 have 0.01 each on top: 50 + 3 + 1 + 100 strength.
    pairs = [10, 20, 30, 20, 30, 30]  # the better of two strengths, in points
    expected = [54 + 15, 54 + np.mean(pairs), 54 + np.mean([20, 30, 30, 30]), 54 + 30]
    np.testing.assert_allclose(found.score.estimate, expected)
    assert list(found.curves) == [1, 3, 4]
    np.testing.assert_allclose(found.curves[4].estimate, [81, 82, 83, 84])


def test_settings_of_the_benchmark_are_no_trials(tmp_path):
    arms = {f"backprop widths={w}": ("backprop", {}, lambda task: 0.4) for w in "abc"}
    (panel,) = panels.join([studies.load(make_study(tmp_path, arms=arms, tasks=2))])
    wider = [
        arm._replace(settings=arm.settings | {"network.widths": [n]})
        for n, arm in enumerate(panel.arms)
    ]
    assert trials.of(panel._replace(arms=wider)) == []


@needs_extra
def test_the_page_the_figures_and_the_table_have_it(tmp_path):
    folder = study_of(tmp_path, noise=0.01)
    charge(folder)
    report.build([folder])
    rows = read_csv(folder / "tables" / "trials.csv")
    assert [row["trials"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0]["bytes_beyond_network"] == "49385"
    assert float(rows[3]["mean"]) > float(rows[0]["mean"])
    assert (folder / "figures" / "trials.png").stat().st_size > 5_000
    page = (folder / "report.html").read_text()
    assert "What the settings cost to find" in page and '"4 trials"' in page
