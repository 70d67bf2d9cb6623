"""Learning curves of made-up studies: arms of different task lengths, the first tasks."""

import json

import numpy as np
import pytest

from cl_bench import report
from cl_bench.report import blocks, panels, sections, studies, sweeps, trials
from tests.report_page import Page, needs_extra
from tests.report_setting import make_study

BATCH = 5
RATES = {10: 400, 100: 40, 1_000: 4}  # steps per task -> tasks: 20,000 examples each
ONE_RATE = ("backprop", {"step_size": 0.01}, lambda task: 0.9 - 0.001 * task)


def stream_of(steps: int, tasks: int) -> dict:
    return {"steps_per_task": steps, "num_tasks": tasks, "batch_size": BATCH}


def rates(folder, lengths=None, **options):
    """A study with one arm of each (steps per task, tasks)."""
    lengths = list(RATES.items()) if lengths is None else lengths
    streams = {f"every {steps}, {n}": stream_of(steps, n) for steps, n in lengths}
    arms = dict.fromkeys(streams, ONE_RATE)
    return make_study(folder, arms=arms, streams=streams, seeds=2, **options)


def panel_of(folder) -> panels.Panel:
    (panel,) = panels.join([studies.load(folder)])
    return panel


def test_arms_of_different_rates_are_drawn_over_examples(tmp_path):
    panel = panel_of(rates(tmp_path))
    fast, middle, slow = panel.arms
    assert panel.axis == "Examples"
    assert [arm.blocks.size for arm in panel.arms] == [3, 1, 1]
    # The first three tasks of 10 steps are examples 0 to 150, the first of 1,000 steps
    # 0 to 5,000; all arms end at 20,000.
    assert fast.blocks.middles[[0, 1, 132, 133]].tolist() == [75, 225, 19_875, 19_975]
    assert middle.blocks.middles[[0, 39]].tolist() == [250, 19_750]
    assert slow.blocks.middles[:4].tolist() == [2_500, 7_500, 12_500, 17_500]
    points = [int((arm.drawn["online_accuracy"].n > 0).sum()) for arm in panel.arms]
    assert points == [134, 40, 4]
    mean = fast.drawn["online_accuracy"].estimate[0]
    assert mean == pytest.approx(100 * (0.9 - 0.001 + 0.005))


@pytest.mark.parametrize("lengths", [[(100, 8), (100, 30)], [(20, 6), (100, 6)]])
def test_tasks_stay_the_axis_where_only_their_number_or_their_length_differs(
    tmp_path, lengths
):
    panel = panel_of(rates(tmp_path, lengths))
    assert panel.axis == "Task"
    most = max(tasks for _, tasks in lengths)
    for arm in panel.arms:
        assert arm.blocks.middles.tolist() == list(range(1, most + 1))


def test_the_axis_needs_whole_tasks_and_known_batches():
    short, long = np.array([100.0, 200.0, 300.0]), np.array([100.0, 150.0])
    assert blocks.axis([short, long], [8, 4]) == "Task"  # 150: not at its end yet
    assert blocks.axis([short, 2 * short], [8, 4]) == "Examples"
    assert blocks.axis([short, 2 * short], [8, 8]) == "Task"
    assert blocks.axis([short, np.full(3, np.nan)], [8, 4]) == "Task"
    assert blocks.axis([short, 3 * short[:1]], [8, 1]) == "Examples"  # at its end


def test_an_unfinished_run_has_its_points_where_it_has_come(tmp_path):
    panel = panel_of(rates(tmp_path, only_tasks=2))
    assert panel.axis == "Examples"
    slow = panel.arms[2].blocks.middles
    assert slow.tolist() == [2_500, 7_500]
    ends = np.full(400, np.nan)
    ends[:2] = 50, 100  # two tasks of the first block of three
    assert blocks.of_examples(ends, 400).middles[0] == 50


def test_the_number_of_tasks_follows_their_length_in_a_sweep(tmp_path):
    (sweep,) = sweeps.sweeps(panel_of(rates(tmp_path)))
    assert (sweep.setting, sweep.scale) == ("stream.steps_per_task", "log")
    assert [point.value for point in sweep.points] == list(RATES)
    assert {point.others for point in sweep.points} == {""}


def test_a_number_of_tasks_of_its_own_is_a_setting(tmp_path):
    lengths = [(10, 20), (10, 40), (100, 20), (100, 40)]
    found = sweeps.sweeps(panel_of(rates(tmp_path, lengths)))
    names = [sweep.setting for sweep in found]
    assert sorted(names) == ["stream.num_tasks", "stream.steps_per_task"]
    assert {p.others for p in found[0].points} == {
        "steps_per_task=10",
        "steps_per_task=100",
    }


def test_trials_stand_where_their_own_arms_do(tmp_path):
    arms, streams = {}, {}
    for steps, tasks in ((10, 400), (1_000, 4)):
        for size in (0.1, 0.2, 0.3):
            label = f"{steps} {size}"
            arms[label] = ("backprop", {"step_size": size}, lambda task: 0.5)
            streams[label] = stream_of(steps, tasks)
    panel = panel_of(make_study(tmp_path, arms=arms, streams=streams, seeds=2))
    fast, slow = trials.of(panel)
    assert fast.blocks.middles[0] == 75 and len(fast.curves[1].estimate) == 134
    assert slow.blocks.middles[:4].tolist() == [2_500, 7_500, 12_500, 17_500]
    assert np.isfinite(slow.curves[3].estimate).sum() == 4


def test_the_note_says_what_a_point_is(tmp_path):
    panel = panel_of(rates(tmp_path))
    note = sections.curves_head(panel, panel.arms, False)
    assert "over examples" in note and "mean of 1 to 3 consecutive tasks" in note


@needs_extra
def test_page_and_figures_of_different_rates(tmp_path):
    from cl_bench.report import figures

    folder = rates(tmp_path)
    report.build([folder])
    specs = json.loads(Page((folder / "report.html").read_text()).scripts[0])
    for name in ("curves-0-0", "curves-0-1", "values-0-0"):
        spec = specs[name]
        for layer in spec["layer"]:
            x = layer["encoding"]["x"]
            assert (x["field"], x["title"]) == ("examples", "Examples")
        ends = {
            row["arm"]: row["examples"] for row in spec["datasets"]["rows"]
        }  # the last of each arm
        assert min(ends.values()) == 17_500 and len(ends) == 3
    tips = specs["curves-0-0"]["layer"][-1]["encoding"]["tooltip"]
    assert ("examples", ",") in [(tip["field"], tip.get("format")) for tip in tips]
    page = Page((folder / "report.html").read_text())
    assert "the end is the mean over the last tenth of an arm's tasks" in page.text
    assert "An arm of few tasks has fewer first ones" in page.text
    assert (folder / "figures" / "sweep_backprop_steps_per_task.png").exists()
    drawn = dict(figures._all(panel_of(folder)))
    (axes,) = drawn["online_accuracy"].axes
    assert axes.get_xlabel() == "Examples"
    lines = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert lines["every 1000, 4"].tolist() == [2_500, 7_500, 12_500, 17_500]


@needs_extra
def test_the_first_tasks_of_a_long_study_have_a_figure_of_their_own(tmp_path):
    from cl_bench.report import figures

    folder = rates(tmp_path)  # tasks of every length: the first ten of each arm
    report.build([folder])
    page = Page((folder / "report.html").read_text())
    spec = json.loads(page.scripts[0])["curves-0-first"]
    rows = spec["datasets"]["rows"]
    fast = [row for row in rows if row["arm"] == "every 10, 400"]
    assert [row["task"] for row in fast] == list(range(1, 11))
    expected = 90.5 - 0.1 * np.arange(10)  # no block: every task is itself
    np.testing.assert_allclose([row["mean"] for row in fast], expected)
    assert len(rows) == 10 + 10 + 4
    x = spec["layer"][0]["encoding"]["x"]
    assert x["title"] == "Task" and x["axis"]["values"] == list(range(1, 11))
    assert x["axis"]["tickCount"] == 10  # or the default, 8, leaves every other one out
    assert "the first 10 tasks" in page.text
    assert (folder / "figures" / "online_accuracy_first_tasks.png").exists()
    (axes,) = dict(figures._all(panel_of(folder)))["online_accuracy_first_tasks"].axes
    assert axes.lines[0].get_xdata().tolist() == list(range(1, 11))
    np.testing.assert_allclose(axes.lines[0].get_ydata(), expected)


@needs_extra
def test_a_study_that_shows_every_task_has_no_such_figure(tmp_path):
    from cl_bench.report import figures

    panel = panel_of(rates(tmp_path, [(10, 160)]))
    assert "online_accuracy_first_tasks" not in dict(figures._all(panel))
