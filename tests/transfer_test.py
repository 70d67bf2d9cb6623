"""The numbers of an accuracy matrix, each against a 3 x 3 example worked by hand."""

import numpy as np
import pytest

from cl_bench.report import anytime, transfer

# Task 1 improves and is then forgotten; task 2 improves while task 3 is learned.
R = np.array([[0.8, 0.2, 0.1], [0.9, 0.6, 0.3], [0.7, 0.75, 0.95]])
B = np.array([0.1, 0.15, 0.05])
WORSE = np.array([[0.9, 0.0, 0.0], [0.6, 0.8, 0.0], [0.7, 0.5, 0.95]])
LA = (0.8 + 0.6 + 0.95) / 3
BY_HAND = {
    "average_accuracy": (0.7 + 0.75 + 0.95) / 3,
    "average_incremental_accuracy": (0.8 + 0.75 + 0.8) / 3,
    "weighted_average_accuracy": (0.8 + 0.9 + 0.6 + 0.7 + 0.75 + 0.95) / 6,
    "learning_accuracy": LA,
    "backward_transfer": (-0.1 + 0.15) / 2,
    "backward_transfer_all": (0.1 - 0.1 + 0.15) / 3,
    "positive_backward_transfer": 0.05,
    "remembering": 1.0,
    "forgetting_chaudhry": ((0.9 - 0.7) + (0.6 - 0.75)) / 2,
    "forgetting_first_last": ((0.8 - 0.7) + (0.6 - 0.75)) / 2,
    "forgetting_max_all": ((0.9 - 0.7) + (0.75 - 0.75)) / 2,
    "forward_transfer_without_baseline": (0.2 + 0.3) / 2,
}
# Two evaluations a task; only tasks learned so far.
TRAINED = np.array([0, 0, 1, 1, 2, 2])
NAN = np.nan
A = np.array(
    [
        [0.5, NAN, NAN], [0.8, NAN, NAN], [0.4, 0.3, NAN], [0.9, 0.6, NAN],
        [0.3, 0.5, 0.6], [0.7, 0.75, 0.95],
    ]
)  # fmt: skip
MIN_ACC = (0.3 + 0.5) / 2
ANYTIME = {
    "min_accuracy": MIN_ACC,
    "worst_case_accuracy": 0.95 / 3 + 2 / 3 * MIN_ACC,
    "average_anytime_accuracy": (0.5 + 0.8 + 0.35 + 0.75 + 1.4 / 3 + 0.8) / 6,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    assert getattr(transfer, name)(R) == pytest.approx(BY_HAND[name])


def test_numbers_with_a_reference_by_hand():
    fwt = ((0.2 - 0.15) + (0.3 - 0.05)) / 2
    assert transfer.forward_transfer(R, B) == pytest.approx(fwt)
    joint = [0.85, 0.7, 0.9]
    assert transfer.intransigence(R, joint) == pytest.approx((0.05 + 0.1 - 0.05) / 3)
    gained = transfer.transfer_of_learning(R, [0.9, 0.8, 0.9])
    assert gained == pytest.approx((-0.1 - 0.2 + 0.05) / 3)
    plastic = transfer.normalised_plasticity(R, [0.9, 0.8, 0.95])
    assert plastic == pytest.approx((0.8 / 0.9 + 0.6 / 0.8 + 1) / 3)
    assert np.isnan(transfer.normalised_plasticity(R, [0.9, 0.0, 0.95]))
    stable = (0.7 / 0.9 + 1 + 1) / 3
    found = transfer.stability_plasticity(R)
    assert found == pytest.approx(2 * LA * stable / (LA + stable))
    plastic = (0.8 / 0.9 + 0.6 / 0.8 + 1) / 3
    found = transfer.stability_plasticity(R, [0.9, 0.8, 0.95])
    assert found == pytest.approx(2 * plastic * stable / (plastic + stable))


def test_the_curve_by_hand():
    np.testing.assert_allclose(transfer.average_accuracy_so_far(R), [0.8, 0.75, 0.8])


def test_negative_transfer_is_no_positive_one():
    lost = (-0.3 - 0.2 - 0.3) / 3
    assert transfer.backward_transfer_all(WORSE) == pytest.approx(lost)
    assert transfer.positive_backward_transfer(WORSE) == 0.0
    assert transfer.remembering(WORSE) == pytest.approx(1 + lost)


@pytest.mark.parametrize("tasks", [2, 3, 7])
def test_accuracy_is_what_was_learned_and_what_was_lost_since(tasks):
    found = np.random.default_rng(tasks).uniform(size=(5, tasks, tasks))
    acc, la = transfer.average_accuracy(found), transfer.learning_accuracy(found)
    bwt = transfer.backward_transfer(found)
    np.testing.assert_allclose(acc, la + (tasks - 1) / tasks * bwt, rtol=1e-12)
    np.testing.assert_allclose(transfer.forgetting_first_last(found), -bwt)
    most = transfer.forgetting_max_all(found)
    assert (most >= 0).all() and (most >= transfer.forgetting_chaudhry(found)).all()


@pytest.mark.parametrize("name", BY_HAND)
def test_runs_stand_on_leading_axes(name):
    function = getattr(transfer, name)
    found = function(np.stack([R, WORSE]))
    np.testing.assert_allclose(found, [function(R), function(WORSE)])


@pytest.mark.parametrize("name", BY_HAND)
def test_tasks_that_were_not_evaluated_do_not_count(name):
    wide = np.full((4, 4), NAN)
    kept = [0, 2, 3]
    wide[np.ix_(kept, kept)] = R
    wide[1, kept] = R[0]  # after a task whose own accuracy nobody measured
    changed = {
        "average_incremental_accuracy": (0.8 + 0.8 + 0.75 + 0.8) / 4,
        "weighted_average_accuracy": (4.7 + 0.8) / 7,
        "backward_transfer_all": 0.15 / 4,
        "positive_backward_transfer": 0.15 / 4,
    }
    want = changed.get(name, BY_HAND[name])
    assert getattr(transfer, name)(wide) == pytest.approx(want)


def test_an_unfinished_run_has_no_final_number():
    found = R.copy()
    found[2] = NAN
    for name in ("average_accuracy", "backward_transfer", "forgetting_chaudhry"):
        assert np.isnan(getattr(transfer, name)(found))
    np.testing.assert_allclose(
        transfer.average_accuracy_so_far(found), [0.8, 0.75, NAN]
    )


def test_one_task_has_nothing_to_forget():
    one = np.array([[0.7]])
    assert transfer.average_accuracy(one) == transfer.learning_accuracy(one) == 0.7
    for name in ("backward_transfer", "backward_transfer_all", "forgetting_max_all"):
        assert np.isnan(getattr(transfer, name)(one))
    assert np.isnan(transfer.forward_transfer(one, [0.1]))
    assert "only one task" in transfer.no_forward_transfer(one, [0.1])
    assert np.isnan(anytime.min_accuracy([[0.5], [0.7]], [0, 0]))
    assert np.isnan(anytime.stability_gap([[0.5], [0.7]], [0, 0]))


def test_why_there_is_no_forward_transfer():
    assert transfer.no_forward_transfer(R, B) == ""
    assert "class-incremental" in transfer.no_forward_transfer(R, B, "class")
    assert "outputs of a future task" in transfer.no_forward_transfer(R, B, "task")
    assert "untrained" in transfer.no_forward_transfer(R, [NAN] * 3, "domain")
    seen = np.where(np.tri(3), R, NAN)
    assert "before it was learned" in transfer.no_forward_transfer(seen, B)
    assert np.isnan(transfer.forward_transfer(seen, B))
    # What needs no future task is not touched by their absence.
    for name in set(BY_HAND) - {"forward_transfer_without_baseline"}:
        assert getattr(transfer, name)(seen) == pytest.approx(BY_HAND[name])


def test_a_network_that_learned_nothing_scores_zero():
    assert transfer.stability_plasticity(np.zeros((3, 3))) == 0.0


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        transfer.average_accuracy(np.zeros((2, 3)))


@pytest.mark.parametrize("name", ANYTIME)
def test_anytime_by_hand(name):
    function = getattr(anytime, name)
    assert function(A, TRAINED) == pytest.approx(ANYTIME[name])
    better = A + 0.01
    np.testing.assert_allclose(
        function(np.stack([A, better]), TRAINED), [ANYTIME[name], ANYTIME[name] + 0.01]
    )


def test_stability_gap_by_hand():
    gap = ((0.8 - 0.4) + (0.9 - 0.3) + (0.6 - 0.5)) / 3
    assert anytime.stability_gap(A, TRAINED) == pytest.approx(gap)
    np.testing.assert_allclose(anytime.stability_gap(np.stack([A, A]), TRAINED), gap)


def test_the_stability_gap_starts_from_the_evaluation_before_the_task():
    lower = A.copy()
    lower[1, 0] = 0.6  # task 1 at the end of its own training
    gap = ((0.6 - 0.4) + (0.9 - 0.3) + (0.6 - 0.5)) / 3
    assert anytime.stability_gap(lower, TRAINED) == pytest.approx(gap)
    # Where the lowest point is above it, nothing was lost.
    lower[2, 0] = 0.7
    gap = ((0.6 - 0.7) + (0.9 - 0.3) + (0.6 - 0.5)) / 3
    assert anytime.stability_gap(lower, TRAINED) == pytest.approx(gap)


def test_windowed_forgetting_and_plasticity_by_hand():
    # Of two evaluations in a row, task 1 loses .6 at most, task 2 .1, and task 3 gains .35.
    lost = (0.6 + 0.1 - 0.35) / 3
    assert anytime.windowed_forgetting(A, TRAINED, window=2) == pytest.approx(lost)
    gained = (0.5 + 0.3 + 0.35) / 3
    assert anytime.windowed_plasticity(A, TRAINED, window=2) == pytest.approx(gained)
    # Of three in a row, task 2 gains .45 from .3 to .75 only over four.
    gained = (0.5 + 0.3 + 0.35) / 3
    assert anytime.windowed_plasticity(A, TRAINED, window=3) == pytest.approx(gained)
    gained = (0.5 + 0.45 + 0.35) / 3
    assert anytime.windowed_plasticity(A, TRAINED, window=4) == pytest.approx(gained)
    both = anytime.windowed_forgetting(np.stack([A, A]), TRAINED, window=2)
    np.testing.assert_allclose(both, lost)


def test_a_window_needs_two_evaluations_of_a_task():
    assert np.isnan(anytime.windowed_forgetting(A[:1], TRAINED[:1]))
    with pytest.raises(ValueError, match="window=1"):
        anytime.windowed_forgetting(A, TRAINED, window=1)


def test_the_lowest_point_between_two_tasks_counts():
    higher = A.copy()
    higher[4, 0] = 0.7  # without the dip inside task 3, the dip in task 2 is lowest
    found = anytime.min_accuracy(higher, TRAINED)
    assert found == pytest.approx((0.4 + 0.5) / 2)


def test_a_missing_evaluation_makes_the_lowest_accuracy_unknown():
    broken = A.copy()
    broken[4, 0] = NAN
    assert np.isnan(anytime.min_accuracy(broken, TRAINED))
    assert np.isnan(anytime.average_anytime_accuracy(broken, TRAINED))
    assert np.isnan(anytime.stability_gap(broken, TRAINED))
