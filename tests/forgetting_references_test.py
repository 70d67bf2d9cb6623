"""What forgetting is compared with: joint training, a new network, a baseline."""

import numpy as np
import pytest

from cl_bench.report import palette, references, scores, sweeps
from tests.forgetting_setting import (
    REFERENCES,
    STEP,
    accuracies_of,
    make_study,
    numbers_of,
    panel_of,
)
from tests.transfer_test import R


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
    shown, reduced = sweeps.shown(panel, most=3, most_lines=3)
    assert reduced
    assert [a.label for a in shown] == ["backprop apart", "backprop together", "ewc"]
    assert all(sweep.setting != "stream.training" for sweep in sweeps.sweeps(panel))
    strokes = palette.strokes(panel.arms[::-1])
    dark = [label for label, s in strokes.items() if s.colour == palette.BACKPROP]
    assert dark in (["backprop apart"], ["backprop worse"])


def test_intransigence_of_all_tasks_is_against_joint_training_at_its_end(tmp_path):
    folder = make_study(tmp_path, **REFERENCES, training={"offline": "joint"})
    found = numbers_of(folder)
    # a_j - R_jj = R_Tj + .02 - R_jj, of (.8, .6, .95) and (.7, .75, .95).
    wanted = 100 * (0.02 + (-0.1 + 0.15 + 0) / 3)
    assert found["intransigence_all_tasks"] == pytest.approx((wanted,) * 3)
    assert np.isnan(found["intransigence"].estimate)
    offline = numbers_of(folder, "offline")["intransigence_all_tasks"]
    assert np.isnan(offline.estimate)


def test_intransigence_is_against_cumulative_training_task_by_task(tmp_path):
    both = {"offline": "joint", "full_reset": "cumulative"}
    found = numbers_of(make_study(tmp_path, **REFERENCES, training=both))
    assert found["intransigence"] == pytest.approx((4.0,) * 3)
    assert np.isfinite(found["intransigence_all_tasks"].estimate)


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
    assert found is not None and found.name == "offline"
    np.testing.assert_allclose(found.accuracy[1], R[-1] + 0.02 + STEP)
    assert np.isnan(found.accuracy[2]).all()
    # A diverged reference has accuracy 0.
    diverged = references.of("joint", panel, arm)
    assert diverged is not None and not diverged.accuracy[2].any()
