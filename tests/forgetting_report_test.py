"""The forgetting section: a made-up study whose accuracy matrix is known."""

import numpy as np
import pytest

from cl_bench import report
from cl_bench.report import forgetting, transfer
from cl_bench.report.label_table import AVERAGE
from tests import report_page
from tests.forgetting_setting import (
    EVIL,
    NAN,
    STEP,
    accuracies_of,
    make_study,
    numbers_of,
    panel_of,
)
from tests.report_page import read_csv
from tests.transfer_test import BY_HAND, MIN_ACC, A, B, R

tables_only = report_page.tables_only


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
    for name, number in forgetting.NUMBERS.items():
        assert np.isnan(found[name].estimate) == bool(number.reference)


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


def test_the_average_is_undefined_where_an_accuracy_so_far_is(tmp_path):
    # Outputs of the current task only: the tasks before have no accuracy any more.
    current = np.where(np.eye(3), R, NAN)
    curve = panel_of(make_study(tmp_path, matrix=current)).arms[0].bands[AVERAGE]
    np.testing.assert_allclose(curve.estimate, [81, NAN, NAN])
