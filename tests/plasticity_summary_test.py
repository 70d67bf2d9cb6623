"""The plasticity table: what was lost over a made-up study whose numbers are known."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cl_bench import report
from cl_bench.report import (
    labels,
    panels,
    plasticity,
    plasticity_table,
    studies,
    summary,
)
from cl_bench.report.summary import summarise
from tests.report_page import needs_extra
from tests.report_setting import ARMS, make_study

# 40 tasks: the first 10 have mean index 4.5, the last tenth (36..39) 37.5.
BACKPROP_LOSS = 0.5 * (37.5 - 4.5)


def panel_of(folder: Path, keep: str | None = None, metrics=None):
    """The study's only panel; `keep` leaves only arms whose label starts with it."""
    study = studies.load(folder)
    if metrics is not None:
        study = study._replace(metrics=metrics)
    (panel,) = panels.join([study])
    arms = [a for a in panel.arms if keep is None or a.label.startswith(keep)]
    return panel._replace(arms=arms)


def losses(panel, first_tasks=10):
    return {r.arm.label: r.plasticity for r in summarise(panel, first_tasks)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("plastic"), noise=0.0)


def test_losses_by_hand(folder):
    found = losses(panel_of(folder))["backprop"]
    assert found.first_tasks == 10
    assert found.first.estimate == pytest.approx(83 - 0.5 * 4.5 + 1)
    # Seeds differ by whole points, but each run is compared with itself: no width.
    assert found.loss == pytest.approx((BACKPROP_LOSS,) * 3)
    assert found.first_to_last == pytest.approx((0.5 * 39,) * 3)
    assert losses(panel_of(folder), 1)["backprop"].loss.estimate == pytest.approx(
        0.5 * 37.5
    )
    with pytest.raises(ValueError, match="first_tasks=0"):
        losses(panel_of(folder), 0)


def test_a_method_that_keeps_learning_loses_nothing(folder):
    found = losses(panel_of(folder))["continual_backprop"]
    assert found.loss.estimate == pytest.approx(0, abs=1e-9)
    assert found.first_to_last.estimate == pytest.approx(0, abs=1e-9)


def test_gap_to_the_fresh_network_is_paired(folder):
    found = losses(panel_of(folder))
    gap = 81 - (83 - 0.5 * 37.5)
    assert found["backprop"].gap == pytest.approx((gap,) * 3)
    fresh = "full_reset (oracle)"
    assert (found["backprop"].fresh, found["backprop"].gap_pairs) == (fresh, 3)
    assert found["continual_backprop"].gap.estimate == pytest.approx(-3)  # it is ahead
    assert found[fresh].fresh == "" and np.isnan(found[fresh].gap.low)
    alone = losses(panel_of(folder, keep="backprop"))["backprop"]
    assert alone.fresh == "" and np.isnan(alone.gap.estimate) and not alone.gap_pairs


def test_the_best_of_several_fresh_networks(folder):
    panel = panel_of(folder)
    (fresh,) = [arm for arm in panel.arms if arm.method == "full_reset"]
    worse = fresh._replace(label="full_reset slow", scores=fresh.scores - 0.2)
    wide = panel._replace(arms=[worse, *panel.arms])
    assert plasticity.fresh_network(wide, fresh.study) is fresh
    assert plasticity.fresh_network(wide, "another study") is None


def test_a_diverged_run_has_lost_all(folder):
    found = losses(panel_of(folder))["l2 strength=0.1"]
    whole = 80 - 0.1 * 4.5 + 2  # seed 2 counts 0 from task 20 on
    assert found.loss.estimate == pytest.approx((0.1 * 33 * 2 + whole) / 3)
    assert found.loss.high == pytest.approx(whole)


def test_signs_turn_where_lower_is_better(folder):
    names = [m for m in studies.load(folder).metrics if m != "online_accuracy"]
    panel = panel_of(folder, metrics=names)
    assert panel.score == "online_loss"
    found = losses(panel)["backprop"]
    assert found.loss.estimate == pytest.approx(BACKPROP_LOSS / 100)
    assert found.gap.estimate == pytest.approx((81 - (83 - 0.5 * 37.5)) / 100)


def test_sample_plasticity_from_first_to_last_task(folder):
    panel = panel_of(folder)
    assert np.isnan(losses(panel)["backprop"].sample_loss.estimate)
    curve = np.linspace(60, 21, 40) + np.array([[0.0], [5.0], [10.0]])
    curve[2, -1] -= 3
    arm = panel.arms[0]
    arm = arm._replace(curves={**arm.curves, "sample_plasticity": curve})
    lost = plasticity.of(panel, arm).sample_loss
    assert lost == pytest.approx((40.0, 39.0, 42.0))


def test_few_tasks_count_on_one_side_only(tmp_path):
    arms = {"backprop": ARMS["backprop"]}
    found = losses(panel_of(make_study(tmp_path / "5", arms=arms, tasks=5)))["backprop"]
    assert found.first_tasks == 4
    assert found.loss.estimate == pytest.approx(0.5 * (4 - 1.5))
    found = losses(panel_of(make_study(tmp_path / "1", arms=arms, tasks=1)))["backprop"]
    assert found.first_tasks == 0
    assert np.isnan([found.loss.estimate, found.first_to_last.estimate]).all()


def test_an_unfinished_run_has_no_loss_yet(tmp_path):
    found = losses(panel_of(make_study(tmp_path, only_tasks=12)))["backprop"]
    assert found.first.estimate == pytest.approx(83 - 0.5 * 4.5 + 1)
    assert np.isnan([found.loss.estimate, found.gap.estimate]).all()
    assert np.isnan(found.first_to_last.estimate)


def test_csv(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "missing", lambda: ["altair"])
    report.build([make_study(tmp_path)], first_tasks=2)
    with open(tmp_path / "tables" / "plasticity.csv", newline="") as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    found = rows["backprop"]
    marked = [f"{a} (oracle)" if a == "full_reset" else a for a in ARMS]
    assert list(rows) == marked and found["unit"] == "%"
    assert (found["first_tasks"], found["last_tasks"], found["runs"]) == ("2", "4", "3")
    assert float(found["plasticity_loss"]) == pytest.approx(0.5 * 37)
    assert float(found["all_tasks"]) == pytest.approx(83 - 0.5 * 19.5 + 1)
    assert float(found["gap_to_fresh_network_low"]) == pytest.approx(16.75)
    assert found["sample_plasticity_loss"] == ""
    assert rows["full_reset (oracle)"]["oracle"] == "True"


@needs_extra
def test_the_page_has_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr("cl_bench.report.figures.write", lambda folder, panels: [])
    report.build([make_study(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    table = page[page.index("<b>Plasticity.</b>") :]
    table = table[: table.index("</table>")]
    assert "First 10 tasks" in table and "Gap to a fresh network" in table
    assert "+16.5<small>16.5 to 16.5</small>" in table
    assert "Sample plasticity" not in table


def test_the_table_leaves_out_what_nobody_measured(folder):
    panel = panel_of(folder, keep="backprop")
    rows = summary.summarise(panel)
    assert "fresh network" not in plasticity_table.html(panel, rows, {})
    panel = panel._replace(metrics=[*panel.metrics, "sample_plasticity"])
    assert "Sample plasticity lost" in plasticity_table.html(panel, rows, {})


def test_every_new_metric_has_a_label():
    recorded = {
        "dead_units_kumar", "dormant_relus", "parameter_magnitude",
        "pooled_effective_rank", "pooled_srank", "sample_plasticity",
        "segment_test_accuracy", "srank_kumar", "stable_rank", "steps_to_threshold",
        "test_accuracy", "test_loss", "threshold_reached", "update_norm", "weight_l1",
        "weight_l2", "weight_rank", "zero_activation_fraction",
    }  # fmt: skip
    assert recorded <= set(labels.LABELS)
    assert all(labels.LABELS[name].formula for name in recorded)
