"""The report by the shape of a study: its segments, seeds, tasks, arms and scores."""

import json

import numpy as np
import pytest

from cl_bench import parts, report
from cl_bench.atomic import StoreError, write_json
from cl_bench.report import panels, studies, summary
from tests import report_page
from tests.report_page import needs_extra, read_csv, summary_of
from tests.report_setting import ARMS, SEEDS, TASKS, make_study

no_figures = report_page.no_figures


def test_the_best_segment_of_a_task_is_a_metric(tmp_path):
    folder = make_study(tmp_path, arms={"backprop": ("backprop", {}, lambda t: 0.5)})
    (path,) = folder.glob("groups/*/*.parquet")
    table = parts.read_part(path).table
    first = table["segment"].to_numpy() == 0
    score = np.where(first, 0.9, 0.6) + 0.001 * table["task"].to_numpy()
    score[table["task"].to_numpy() == 3] = np.nan
    columns = table.to_pydict() | {"segment_test_accuracy": score}
    for name in ("task", "segment"):
        columns[name] = np.array(columns[name], np.int32)
    path.unlink()
    parts.write_part(path.parent, 0, columns, 0, 2 * TASKS)
    study = studies.load(folder)
    best = studies.matrix(study, "best_test_accuracy")
    expected = np.tile(0.9 + 0.001 * np.arange(TASKS), (SEEDS, 1))
    expected[:, 3] = np.nan
    np.testing.assert_allclose(best, expected)
    last = studies.matrix(study, "segment_test_accuracy")
    np.testing.assert_allclose(last[:, :3], expected[:, :3] - 0.3)


def test_a_study_or_the_user_says_what_the_score_is(tmp_path):
    folder = make_study(tmp_path)

    def of(asked=None):
        (panel,) = panels.join([studies.load(folder)], asked)
        by_label = {row.arm.label: row.last for row in summary.summarise(panel)}
        return panel.score, by_label["continual_backprop"].estimate

    assert of() == ("online_accuracy", pytest.approx(85))  # mean of three seeds
    write_json(folder / "config.json", {"settings": {"score": "online_loss"}})
    assert of() == ("online_loss", pytest.approx(0.15))
    assert of("online_accuracy") == ("online_accuracy", pytest.approx(85))
    write_json(folder / "config.json", {"settings": {"score": "test_accuracy"}})
    assert of()[0] == "online_accuracy"  # the study's was not recorded
    with pytest.raises(StoreError, match="'online_los'.* mean 'online_loss'"):
        report.build([folder], score="online_los")


def test_the_time_of_a_resumed_study_is_that_of_all_its_processes(tmp_path):
    folder = make_study(tmp_path)
    assert studies.load(folder).provenance["wall_seconds"] == 61.0
    first = {"wall_seconds": 10.0, "end_time": "9:00", "device": "cpu"}
    killed, last = {"start_time": "9:10"}, {"wall_seconds": 5.0, "end_time": "9:30"}
    write_json(folder / "provenance.json", first | {"resumed": [killed, last]})
    found = studies.load(folder).provenance
    assert (found["wall_seconds"], found["end_time"]) == (15.0, "9:30")
    assert found["device"] == "cpu" and len(found["resumed"]) == 2


@needs_extra
def test_one_seed_has_no_interval(tmp_path, no_figures):
    report.build([make_study(tmp_path, seeds=1)])
    found = summary_of(tmp_path)["continual_backprop"]
    assert float(found["last"]) == pytest.approx(84)
    assert found["last_low"] == found["last_high"] == ""
    page = (tmp_path / "report.html").read_text()
    assert "84.0<small>–</small>" in page
    assert "single run has no interval" in page


@needs_extra
def test_unfinished_study_says_so(tmp_path, no_figures):
    report.build([make_study(tmp_path, only_tasks=10)])
    found = summary_of(tmp_path)["backprop"]
    assert found["unfinished"] == "3" and found["last"] == ""
    assert float(found["first"]) == pytest.approx(84)
    assert "have not reached their last task" in (tmp_path / "report.html").read_text()


def test_an_unfinished_study_whose_settings_do_not_say_its_length(tmp_path, no_figures):
    make_study(tmp_path, only_tasks=10)
    described = json.loads((tmp_path / "runs.json").read_text())
    for run in described:
        run["num_tasks"] = run["stream_config"].pop("num_tasks")
    write_json(tmp_path / "runs.json", described)
    (panel,) = panels.join([studies.load(tmp_path)])
    assert {arm.num_tasks for arm in panel.arms} == {TASKS}
    report.build([tmp_path])
    found = summary_of(tmp_path)["backprop"]
    assert found["unfinished"] == "3" and found["last"] == ""


def test_a_group_in_batches_costs_what_all_of_them_do(tmp_path):
    folder = make_study(tmp_path, arms={"backprop": ("backprop", {}, lambda t: 0.5)})
    first = folder / "groups" / "digits-backprop" / "group.json"
    facts = json.loads(first.read_text()) | {"lanes": 1, "lane_steps_per_second": 10.0}
    write_json(first, facts)
    for i, speed in ((1, 20.0), (2, 60.0)):
        own = facts | {"lane_steps_per_second": speed, "compile_seconds": 0.0}
        batch = folder / "groups" / f"digits-backprop+{i}"
        batch.mkdir()
        write_json(batch / "group.json", own)
    study = studies.load(folder)
    assert list(study.groups) == ["digits-backprop"]
    (row,) = summary.summarise(panels.join([study])[0])
    assert row.cost["wall_seconds"] == 90.0 and row.cost["compile_seconds"] == 2.5
    assert row.cost["lane_steps_per_second"] == 30.0
    assert study.groups["digits-backprop"]["lanes"] == 3


def test_arms_that_hide_a_sweep_are_split(tmp_path):
    arms = {
        "l2 strength=0.01": ARMS["l2 strength=0.01"],
        "l2 strength=0.1": ARMS["l2 strength=0.1"],
    }
    make_study(tmp_path, arms=arms)
    runs = json.loads((tmp_path / "runs.json").read_text())
    study = studies.load(tmp_path)
    merged = study._replace(runs=[run._replace(arm="l2") for run in study.runs])
    assert len(runs) == len(study.runs) == 6
    found = [arm.label for arm in panels.join([merged])[0].arms]
    assert found == ["l2 strength=0.01", "l2 strength=0.1"]


@needs_extra
def test_long_curves_are_averaged_in_blocks(tmp_path, no_figures):
    arms = {"backprop": ARMS["backprop"]}
    make_study(tmp_path, arms=arms, tasks=330, seeds=2)
    (panel,) = panels.join([studies.load(tmp_path)])
    size, middles = panel.arms[0].blocks
    assert size == 3 and len(middles) == 110
    drawn = panel.arms[0].drawn["online_accuracy"]
    assert middles[0] == 2.0 and panel.axis == "Task"
    assert drawn.estimate[0] == pytest.approx(100 * (0.83 - 0.005 + 0.005))
    report.build([tmp_path])
    assert "mean of 3 consecutive tasks" in (tmp_path / "report.html").read_text()
    assert len(read_csv(tmp_path / "tables" / "curves.csv")) > 330


def test_lower_is_better_scores(tmp_path):
    make_study(tmp_path)
    study = studies.load(tmp_path)
    names = [m for m in study.metrics if m != "online_accuracy"]
    (panel,) = panels.join([study._replace(metrics=names)])
    assert panel.score == "online_loss"
    rows = {row.arm.label: row for row in summary.summarise(panel)}
    assert rows["backprop"].best_task == 1
    assert rows["l2 strength=0.1"].diverged == 1
    # The worst loss anybody had stands for the diverged run's.
    worst = max(1 - (0.83 - 0.005 * 39), 0)
    last = [0.2 + 0.001 * 37.5, 0.19 + 0.001 * 37.5, worst]
    assert rows["l2 strength=0.1"].last.estimate == pytest.approx(np.mean(last))


@needs_extra
def test_a_legend_of_many_rows_leaves_the_axes_their_height(tmp_path):
    from cl_bench.report import figures

    arms = {
        f"a method with a long name {i}": (f"m{i}", {}, lambda task: 0.5)
        for i in range(20)
    }
    folder = make_study(tmp_path, arms=arms, tasks=2, seeds=2)
    (panel,) = panels.join([studies.load(folder)])
    # Matplotlib warns where a layout leaves no room, and warnings are errors here.
    assert figures.write(tmp_path / "figures", [panel._replace(metrics=[panel.score])])
