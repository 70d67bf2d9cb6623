"""The forgetting section: a made-up study whose accuracy matrix is known."""

import csv
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from cl_bench import parts, report
from cl_bench.atomic import write_json
from cl_bench.report import (
    accuracies,
    forgetting,
    palette,
    panels,
    references,
    scores,
    studies,
    sweeps,
    transfer,
)
from cl_bench.report.accuracies import Accuracies
from cl_bench.report.labels import AVERAGE
from cl_bench.report.summary import summarise
from tests.report_test import Page, browser, opened
from tests.transfer_test import BY_HAND, MIN_ACC, A, B, R

PACKAGES = ("altair", "matplotlib", "vl_convert")
needs_extra = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)), reason="extra `report` is absent"
)
EVIL = "ewc <script>alert(1)</script> & {{x}} which is a name far too long for a title"
STEP = 0.01  # every seed is so much better than the one before
NAN = np.nan


def make_study(
    folder: Path, *, arms=("backprop", EVIL), seeds=3, scenario="domain", anytime=True,
    matrix=R, initial=B, diverged=None, done=3, recorded=True, tasks=(0, 1, 2),
    better=None, training=None, also=None, stream=None,
) -> Path:  # fmt: skip
    """Two segments a task; the matrix stands on a task's last row, b on the first.

    `better` is arm -> what it has on top of the matrix, `training` arm -> its stream's;
    `also` further columns of task ends, `stream` further settings.
    """
    better, training = better or {}, training or {}
    runs, rows = [], []
    for arm in arms:
        for seed in range(seeds):
            run_id = f"{arm}-{seed}"
            runs.append(
                {
                    "run_id": run_id, "group": "g", "study": "fake", "benchmark": "b",
                    "arm": arm, "method": arm.split()[0], "stream": "split_classes",
                    "network": "mlp", "seed": seed, "hyper": {"step_size": 0.1},
                    "stream_config": {
                        "name": "split_classes", "num_tasks": 3, "scenario": scenario,
                        "training": training.get(arm, "sequential"),
                        **(stream or {}),
                    },
                }
            )  # fmt: skip
            for n in range(int(2 * done)):
                row = {
                    "run_id": run_id, "study": "fake", "benchmark": "b", "arm": arm,
                    "stream": "split_classes", "network": "mlp", "seed": seed,
                    "method": arm.split()[0], "task": n // 2, "segment": n % 2,
                    "step": 10 * (n + 1), "online_accuracy": NAN, "diverged": 0.0,
                }  # fmt: skip
                end = n % 2 == 1
                row["online_accuracy"] = 0.5 if end else NAN
                if diverged == (arm, seed, n // 2):
                    row["diverged"] = 1.0
                for j in tasks if recorded else ():
                    value = matrix[n // 2, j] + STEP * seed if end else NAN
                    value += better.get(arm, 0.0)
                    row[f"accuracy_on/{j}"] = value
                    row[f"initial_accuracy_on/{j}"] = initial[j] if n == 1 else NAN
                    if anytime:
                        row[f"anytime_accuracy_on/{j}"] = A[n, j] + STEP * seed
                for name, value in (also or {}).items():
                    row[name] = value + STEP * seed if end else NAN
                rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "runs.json", runs)
    write_json(folder / "config.json", {"study": "fake"})
    write_json(folder / "provenance.json", {"wall_seconds": 1.0})
    (folder / "groups" / "g").mkdir(parents=True)
    kinds = {"task": np.int32, "segment": np.int32}
    columns = {k: np.array([r[k] for r in rows], kinds.get(k)) for k in rows[0]}
    parts.write_part(folder / "groups" / "g", 0, columns, 0, int(2 * done))
    write_json(
        folder / "groups" / "g" / "group.json",
        {
            "lanes": len(runs),
            "flops_per_step": 1.2e5,
            "learner_bytes": 98_765,
            "bytes_beyond_network": 65_400,
            "charged_flops_per_step": 1.31e5,
        },
    )
    return folder


def panel_of(folder: Path):
    (panel,) = panels.join([studies.load(folder)])
    return panel


def accuracies_of(folder: Path, arm=0) -> Accuracies:
    found = panel_of(folder).arms[arm].accuracies
    assert found is not None
    return found


def numbers_of(folder: Path, arm="backprop"):
    rows = {row.arm.label: row.forgetting for row in summarise(panel_of(folder))}
    return rows[arm]


@pytest.fixture
def no_figures(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("cl_bench.report.figures.write", lambda folder, panels: [])


@pytest.fixture
def tables_only(monkeypatch):
    monkeypatch.setattr(report, "missing", lambda: ["altair"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = make_study(tmp_path_factory.mktemp("fake"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cl_bench.report.figures.write", lambda folder, panels: [])
        report.build([folder])
    return folder


def test_the_matrix_comes_back_from_the_records(tmp_path):
    found = accuracies_of(make_study(tmp_path))
    want = np.stack([R + STEP * seed for seed in range(3)])
    np.testing.assert_allclose(found.matrix, want)
    np.testing.assert_allclose(found.initial, np.stack([B] * 3))
    np.testing.assert_allclose(found.anytime[1], A + STEP)
    assert found.trained.tolist() == [0, 0, 1, 1, 2, 2]


def test_numbers_of_an_arm_by_hand(tmp_path):
    found = numbers_of(make_study(tmp_path))
    shift = 100 * STEP  # the mean of seeds 0, 1, 2 is seed 1's
    assert found["average_accuracy"] == pytest.approx((80 + shift, 80, 80 + 2 * shift))
    # Differences of one run do not depend on how good the seed is: no width.
    for name in ("backward_transfer", "forgetting_chaudhry", "forgetting_max_all"):
        assert found[name] == pytest.approx((100 * BY_HAND[name],) * 3)
    assert found["min_accuracy"].estimate == pytest.approx(100 * MIN_ACC + shift)
    assert found["stability_gap"].estimate == pytest.approx(100 * 1.1 / 3)
    assert found["forward_transfer"].estimate == pytest.approx(15 + shift)
    assert set(found) == set(forgetting.NUMBERS)
    # Nothing to compare with:
    for name in ("intransigence", "normalised_plasticity", "transfer_of_learning"):
        assert np.isnan(found[name].estimate)


def test_average_accuracy_so_far_is_a_metric_and_the_columns_are_none(tmp_path):
    panel = panel_of(make_study(tmp_path))
    assert panel.metrics == ["online_accuracy", "diverged", "average_accuracy_so_far"]
    curve = panel.arms[0].bands["average_accuracy_so_far"].estimate
    np.testing.assert_allclose(curve, 100 * transfer.average_accuracy_so_far(R) + 1)


def test_nothing_recorded_is_no_section(tmp_path):
    folder = make_study(tmp_path, recorded=False)
    panel = panel_of(folder)
    assert panel.arms[0].accuracies is None
    assert numbers_of(folder) == {}


def test_class_incremental_has_no_forward_transfer(tmp_path):
    folder = make_study(tmp_path, scenario="class")
    found = numbers_of(folder)
    assert np.isnan(found["forward_transfer"].estimate)
    assert np.isnan(found["forward_transfer_without_baseline"].estimate)
    assert found["average_accuracy"].estimate == pytest.approx(81)
    arm = panel_of(folder).arms[0]
    assert "class-incremental" in forgetting.no_forward_transfer(arm)


def test_task_incremental_has_forward_transfer_with_a_single_head_only(tmp_path):
    folder = make_study(tmp_path / "own", scenario="task")
    assert np.isnan(numbers_of(folder)["forward_transfer"].estimate)
    reason = forgetting.no_forward_transfer(panel_of(folder).arms[0])
    assert "outputs of a future task" in reason
    shared = {"single_head": True}
    folder = make_study(tmp_path / "one", scenario="task", stream=shared)
    assert numbers_of(folder)["forward_transfer"].estimate == pytest.approx(16)
    assert forgetting.no_forward_transfer(panel_of(folder).arms[0]) == ""


def test_without_evaluations_in_between(tmp_path):
    found = numbers_of(make_study(tmp_path, anytime=False))
    for name in ("min_accuracy", "worst_case_accuracy", "stability_gap"):
        assert np.isnan(found[name].estimate)
    assert found["average_accuracy"].estimate == pytest.approx(81)


def test_an_unfinished_study_has_no_final_numbers(tmp_path):
    folder = make_study(tmp_path, done=2)
    found = numbers_of(folder)
    for name in ("average_accuracy", "backward_transfer", "min_accuracy"):
        assert np.isnan(found[name].estimate), name
    assert accuracies_of(folder).matrix.shape == (3, 3, 3)


def test_a_run_stopped_inside_its_last_task_has_no_lowest_accuracy(tmp_path):
    found = numbers_of(make_study(tmp_path, done=2.5))
    for name in ("min_accuracy", "worst_case_accuracy", "average_anytime_accuracy"):
        assert np.isnan(found[name].estimate), name


def test_a_diverged_run_counts_as_accuracy_zero(tmp_path):
    folder = make_study(tmp_path, diverged=("backprop", 2, 1))
    matrix = accuracies_of(folder).matrix
    np.testing.assert_allclose(matrix[1], R + STEP)
    np.testing.assert_allclose(matrix[2, 0], R[0] + 2 * STEP)
    assert not matrix[2, 1:].any()
    found = numbers_of(folder)
    assert found["average_accuracy"].estimate == pytest.approx((80 + 81 + 0) / 3)
    assert found["min_accuracy"].low == pytest.approx(0)


def test_a_diverged_run_leaves_undefined_what_is_undefined(tmp_path):
    seen = np.where(np.tri(3), R, NAN)
    folder = make_study(tmp_path, matrix=seen, diverged=("backprop", 2, 1))
    matrix = accuracies_of(folder).matrix
    assert np.isnan(matrix[2, 1, 2]) and matrix[2, 1, 0] == 0.0


def test_tasks_that_were_not_evaluated(tmp_path):
    found = numbers_of(make_study(tmp_path, tasks=(0, 2)))
    assert found["average_accuracy"].estimate == pytest.approx(
        100 * (0.7 + 0.95) / 2 + 1
    )
    assert found["backward_transfer"].estimate == pytest.approx(-10)


REFERENCES = {
    "arms": ("backprop", "offline", "full_reset"),
    "better": {"offline": 0.02, "full_reset": 0.04},
}


def test_the_baseline_of_others_is_not_trained_on_all_tasks_together(tmp_path):
    better = {"backprop together": 0.1}
    arms = ("backprop apart", "backprop together", "ewc")
    training = {"backprop together": "joint"}
    folder = make_study(tmp_path, arms=arms, better=better, training=training)
    panel = panel_of(folder)
    found = scores.baseline(panel, "fake")
    assert found is not None and found.label == "backprop apart"
    alone = panel._replace(arms=[a for a in panel.arms if a.training == "joint"])
    assert scores.baseline(alone, "fake") is alone.arms[0]


def test_joint_training_is_a_family_of_its_own(tmp_path):
    better = {"backprop together": 0.1, "backprop apart": 0.05}
    arms = ("backprop apart", "backprop worse", "backprop together", "ewc")
    training = {"backprop together": "joint"}
    panel = panel_of(make_study(tmp_path, arms=arms, better=better, training=training))
    shown, reduced = sweeps.shown(panel, most=3)
    assert reduced
    assert [a.label for a in shown] == ["backprop apart", "backprop together", "ewc"]
    assert all(sweep.setting != "stream.training" for sweep in sweeps.sweeps(panel))
    strokes = palette.strokes(panel.arms[::-1])
    dark = [label for label, s in strokes.items() if s.colour == palette.BACKPROP]
    assert dark in (["backprop apart"], ["backprop worse"])


def test_intransigence_is_against_joint_training_at_its_end(tmp_path):
    folder = make_study(tmp_path, **REFERENCES, training={"offline": "joint"})
    found = numbers_of(folder)
    # a_j - R_jj = R_Tj + .02 - R_jj, of (.8, .6, .95) and (.7, .75, .95).
    wanted = 100 * (0.02 + (-0.1 + 0.15 + 0) / 3)
    assert found["intransigence"] == pytest.approx((wanted,) * 3)
    assert np.isnan(numbers_of(folder, "offline")["intransigence"].estimate)


def test_intransigence_is_against_cumulative_training_task_by_task(tmp_path):
    both = {"offline": "joint", "full_reset": "cumulative"}
    found = numbers_of(make_study(tmp_path, **REFERENCES, training=both))
    assert found["intransigence"] == pytest.approx((4.0,) * 3)


@pytest.mark.parametrize("fresh", ["full_reset", "independent"])
def test_plasticity_is_against_a_new_network_of_the_same_seed(tmp_path, fresh):
    folder = make_study(tmp_path, arms=("backprop", fresh), better={fresh: 0.04})
    learned = [np.array([0.8, 0.6, 0.95]) + STEP * seed for seed in range(3)]
    wanted = np.mean([100 * np.mean(r / (r + 0.04)) for r in learned])
    found = numbers_of(folder)["normalised_plasticity"]
    assert found.estimate == pytest.approx(wanted)
    assert np.isnan(numbers_of(folder, fresh)["normalised_plasticity"].estimate)


def test_a_reference_has_no_number_for_a_seed_that_it_lacks(tmp_path):
    folder = make_study(
        tmp_path, **REFERENCES, training={"offline": "joint"},
        diverged=("offline", 2, 0),
    )  # fmt: skip
    panel = panel_of(folder)
    arm, offline, _ = panel.arms
    known = accuracies_of(folder, 1)
    one_less = offline._replace(
        runs=offline.runs[:2], accuracies=known._replace(matrix=known.matrix[:2])
    )
    fewer = panel._replace(arms=[arm, one_less])
    found = references.of("joint", fewer, arm)
    assert found is not None and found.name.startswith("offline (trained on all")
    np.testing.assert_allclose(found.accuracy[1], R[-1] + 0.02 + STEP)
    assert np.isnan(found.accuracy[2]).all()
    # A diverged reference has accuracy 0.
    diverged = references.of("joint", panel, arm)
    assert diverged is not None and not diverged.accuracy[2].any()


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv(tmp_path, tables_only):
    report.build([make_study(tmp_path)])
    rows = {row["arm"]: row for row in read_csv(tmp_path / "tables" / "forgetting.csv")}
    assert list(rows) == ["backprop", EVIL]
    found = rows["backprop"]
    assert float(found["average_accuracy_low"]) == pytest.approx(80)
    assert float(found["forgetting_first_last"]) == pytest.approx(-2.5)
    assert float(found["bytes_beyond_network"]) == 65_400
    assert float(found["learner_bytes"]) == 98_765 and found["unit"] == "%"
    assert found["no_forward_transfer"] == ""
    cells = read_csv(tmp_path / "tables" / "accuracy_matrix.csv")
    assert len(cells) == 2 * 3 * (3 + 9)
    at = {(c["arm"], c["seed"], c["after"], c["task"]): c["accuracy"] for c in cells}
    assert float(at["backprop", "2", "3", "2"]) == pytest.approx(77)
    assert float(at["backprop", "0", "0", "2"]) == pytest.approx(15)


def test_csv_is_not_written_without_a_matrix(tmp_path, tables_only):
    report.build([make_study(tmp_path, recorded=False)])
    assert not (tmp_path / "tables" / "forgetting.csv").exists()


def section(page: str) -> str:
    found = page[: page.index("<b>Remembering.</b>")].rindex("<table")
    return page[found : page.index("</details>", found)]


@needs_extra
def test_the_page_has_the_table_and_the_note(built):
    found = section((built / "report.html").read_text())
    for title in ("ACC", "Forgetting, Chaudhry", "Forgetting, max of all", "WC-ACC"):
        assert f'<th scope="col">{title}<' in found
    assert "81.0<small>80.0 to 82.0</small>" in found
    assert "−2.5<small>−2.5 to −2.5</small>" in found.replace("-", "−")
    charged = re.findall("<td>65.4 k</td><td>131 k</td></tr>", found)
    assert len(charged) == 2 * found.count("<b>")  # two arms in each table
    assert "Same word, different number" in found and "Continuum" in found


@needs_extra
def test_the_page_says_why_a_number_is_missing(tmp_path, no_figures):
    report.build([make_study(tmp_path, scenario="class", anytime=False)])
    found = section((tmp_path / "report.html").read_text())
    assert "No FWT: class-incremental" in found
    assert "min-ACC" not in found and 'scope="col">FWT' not in found


@needs_extra
def test_the_page_names_its_references(tmp_path, no_figures):
    report.build([make_study(tmp_path, **REFERENCES, training={"offline": "joint"})])
    found = section((tmp_path / "report.html").read_text())
    assert 'scope="col">Intransigence' in found
    assert "on task j of offline (trained on all tasks together, at the end)" in found
    assert 'scope="col">Normalised plasticity' in found and "of full_reset" in found
    rows = read_csv(tmp_path / "tables" / "forgetting.csv")
    compared = [row["joint_reference"].startswith("offline") for row in rows]
    assert compared == [True, False, True]
    assert rows[0]["single_task_reference"] == "full_reset"


@needs_extra
def test_the_page_without_references_has_no_such_columns(built):
    found = section((built / "report.html").read_text())
    assert "Intransigence" not in found and "Normalised" not in found


@needs_extra
def test_the_page_without_a_matrix_has_no_section(tmp_path, no_figures):
    report.build([make_study(tmp_path, recorded=False)])
    page = (tmp_path / "report.html").read_text()
    assert "Remembering" not in page and "matrix-0" not in page


def specs_of(folder: Path) -> dict:
    return json.loads(Page((folder / "report.html").read_text()).scripts[0])


@needs_extra
def test_a_heat_map_and_curves_for_every_arm(built):
    specs = specs_of(built)
    assert {k for k in specs if k.startswith(("matrix", "tasks"))} == {
        "matrix-0-0", "matrix-0-1", "tasks-0-0", "tasks-0-1",
    }  # fmt: skip
    cells = specs["matrix-0-0"]["datasets"]["rows"]
    at = {(c["after"], c["task"]): c["mean"] for c in cells}
    assert len(cells) == 12
    assert at[2, 1] == pytest.approx(91) and at[1, 2] == pytest.approx(21)
    assert at[0, 3] == pytest.approx(5)
    lines = specs["tasks-0-0"]["datasets"]["rows"]
    assert [(r["task"], r["after"]) for r in lines] == [
        (1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3),
    ]  # fmt: skip
    assert lines[1]["mean"] == pytest.approx(91)
    assert (lines[1]["low"], lines[1]["high"]) == pytest.approx((90, 92))


@needs_extra
def test_names_are_escaped_and_figures_captioned(built):
    markup = (built / "report.html").read_text()
    page = Page(markup)
    assert "<script>alert" not in markup and EVIL in page.text
    count = [tag for tag, _ in page.tags].count
    assert count("table") == count("caption") and count("figure") == count("figcaption")
    assert not re.search(r"accuracy_on[/ ]\d", page.text)


@needs_extra
def test_a_long_stream_is_drawn_in_steps():
    from cl_bench.report import forgetting_charts

    matrix = np.random.default_rng(0).uniform(size=(2, 60, 60))
    found = Accuracies(matrix, np.full((2, 60), NAN), np.zeros((2, 0, 60)), np.zeros(0))
    cells = forgetting_charts.heat_map("x", found)["datasets"]["rows"]
    tasks = sorted({c["task"] for c in cells})
    assert len(tasks) == accuracies.MOST_CELLS and (tasks[0], tasks[-1]) == (
        1,
        60,
    )
    assert min(c["after"] for c in cells) == 1
    lines = forgetting_charts.curves("x", found, (0.0, 100.0))["datasets"]["rows"]
    assert len({r["task"] for r in lines}) == accuracies.MOST_CURVES


@needs_extra
@pytest.mark.skipif(browser() is None, reason="no Chromium to open the page with")
def test_every_chart_is_drawn_in_a_browser(built, tmp_path):
    specs = specs_of(built)
    document = opened(built / "report.html", tmp_path / "profile", "--dump-dom")
    assert f'data-drawn="{len(specs)}"' in document
    assert 'class="chart error"' not in document


def test_the_average_is_undefined_where_an_accuracy_so_far_is(tmp_path):
    # Outputs of the current task only: the tasks before have no accuracy any more.
    current = np.where(np.eye(3), R, NAN)
    curve = panel_of(make_study(tmp_path, matrix=current)).arms[0].bands[AVERAGE]
    np.testing.assert_allclose(curve.estimate, [81, NAN, NAN])


@needs_extra
def test_paper_figures(tmp_path):
    from cl_bench.report import figures

    figures.write(tmp_path, [panel_of(make_study(tmp_path / "study"))])
    for name in ("accuracy_matrix", "task_accuracy", "average_accuracy_so_far"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "accuracy_matrix.svg").read_text()
    assert "After training on task" in drawn and "Accuracy on task" in drawn
    figures.write(
        tmp_path / "none", [panel_of(make_study(tmp_path / "bare", recorded=False))]
    )
    assert not (tmp_path / "none" / "accuracy_matrix.png").exists()
