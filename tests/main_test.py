"""A finished study: what the command leaves, prints and refuses to change."""

import re

import numpy as np
import pytest

from cl_bench import atomic, provenance, store
from tests import small_study

cache = small_study.cache
cli = small_study.cli


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A finished study: its experiment, its workdir, what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    experiment, workdir = small_study.write(folder), folder / "out"
    code, out, err = small_study.finish(
        small_study.start(
            cache, f"--config={experiment}", f"--workdir={workdir}", "--noreport"
        )
    )
    assert code == 0, err
    return experiment, workdir, out + err


def test_every_row_says_what_it_is(finished):
    table = small_study.rows(finished[1])
    assert table.num_rows == 2 * 4 * 3  # seeds x tasks x segments
    first = table.slice(0, 1).to_pylist()[0]
    told = {k: first[k] for k in ("study", "benchmark", "stream", "network", "method")}
    assert told == {
        "study": "small", "benchmark": "small_images", "stream": "permuted",
        "network": "mlp", "method": "backprop",
    }  # fmt: skip
    assert first["arm"] == "backprop"
    assert len(set(table["run_id"].to_pylist())) == 2
    for run in (table.slice(0, 12), table.slice(12, 12)):
        column = {name: run[name].to_numpy() for name in run.column_names}
        assert len(set(column["run_id"])) == len(set(column["seed"])) == 1
        assert column["task"].tolist() == [t for t in range(4) for _ in range(3)]
        assert column["segment"].tolist() == [0, 1, 2] * 4
        assert column["step"].tolist() == list(range(10, 130, 10))
        # A task's metrics stand on its last segment, those of its start on its first.
        measured = ~np.isnan(column["online_accuracy"])
        assert measured.tolist() == [False, False, True] * 4
        measured = ~np.isnan(column["dead_units"])
        assert measured.tolist() == [True, False, False] * 4
        assert not column["diverged"].any()
    assert set(table["seed"].to_pylist()) == {0, 1}


def test_group_json_is_the_cost_record(finished):
    (path,) = finished[1].glob("groups/*/group.json")
    facts = atomic.read_json(path)
    # 16 -> 5 -> 4 -> 4 with biases
    assert facts["parameters"] == (16 * 5 + 5) + (5 * 4 + 4) + (4 * 4 + 4)
    assert facts["learner_bytes"] >= 4 * facts["parameters"]
    assert facts["flops_per_step"] > 2 * facts["parameters"]
    assert facts["bytes_per_step"] > 4 * facts["parameters"]
    assert facts["charged_flops_per_step"] == facts["flops_per_step"]
    assert facts["learner_bytes_by_kind"] == {"network": facts["learner_bytes"]}
    assert facts["strategy"] == "map" and facts["lane_width"] == facts["lanes"] == 2
    assert facts["devices"] == 2 and facts["device"]
    assert facts["compile_seconds"] > 0 and facts["wall_seconds"] > 0
    steps = 2 * 120
    rate = facts["lane_steps_per_second"]
    assert rate == pytest.approx(steps / facts["wall_seconds"])


def test_provenance_and_config_trace_the_study(finished):
    experiment, workdir, _ = finished
    found = atomic.read_json(workdir / "provenance.json")
    assert found["versions"]["jax"] and found["versions"]["python"]
    assert f"--workdir={workdir}" in found["command_line"]
    assert found["device"]["platform"] == "cpu"
    assert found["wall_seconds"] > 0 and found["end_time"] >= found["start_time"]
    git = provenance.git_state(small_study.ROOT / "cl_bench") or {}
    assert (found["git"] or {}).get("commit") == git.get("commit")
    told = atomic.read_json(workdir / "config.json")
    assert told["experiment"] == str(experiment)
    assert told["config"]["arms"]["small_images: backprop"]["seeds"] == [0, 1]
    assert len(atomic.read_json(workdir / "runs.json")) == 2


def test_progress_is_plain_lines_where_there_is_no_terminal(finished):
    lines = [line for line in finished[2].splitlines() if " tasks" in line]
    told = [line.split(": ")[1].split("  ")[0] for line in lines]
    # Between the two, one line every five seconds: none, unless the machine is busy.
    assert told[0] == "0/4 tasks" and told[-1] == "4/4 tasks"
    assert len(set(told)) == len(told)
    assert "\x1b" not in finished[2] and "score 0." in lines[-1]


def test_a_finished_study_is_left_alone(finished, cache):
    experiment, workdir, _ = finished
    before = small_study.files(workdir)
    process = small_study.start(
        cache, f"--config={experiment}", f"--workdir={workdir}", "--noreport"
    )
    code, out, err = small_study.finish(process)
    assert (code, out) == (0, f"Nothing to do: {workdir} is finished.\n"), err
    assert small_study.files(workdir) == before


def test_the_report_is_built_once_where_it_is_missing(finished, cli, capsys):
    report = pytest.importorskip("cl_bench.report")
    if report.missing():
        pytest.skip("the extra `report` is not installed")
    args = f"--config={finished[0]}", f"--workdir={finished[1]}"
    cli(*args)
    page = finished[1] / "report.html"
    assert capsys.readouterr().out == f"Report: {page}\n"
    changed = page.stat().st_mtime_ns
    cli(*args)
    assert "Nothing to do" in capsys.readouterr().out
    assert page.stat().st_mtime_ns == changed


def test_another_score_makes_another_report(finished, cli, capsys):
    report = pytest.importorskip("cl_bench.report")
    if report.missing():
        pytest.skip("the extra `report` is not installed")
    args = f"--config={finished[0]}", f"--workdir={finished[1]}"
    for score in ("dead_units", ""):  # and back
        cli(*args, f"--config.score={score}")
        assert capsys.readouterr().out == f"Report: {finished[1] / 'report.html'}\n"
        (panel,) = report.join([report.studies.load(finished[1])])
        assert panel.score == (score or "online_accuracy")


def test_a_second_process_is_refused(finished, cache):
    experiment, workdir, _ = finished
    before = small_study.files(workdir)
    with store.open_study(workdir):
        code, out, err = small_study.finish(
            small_study.start(cache, f"--config={experiment}", f"--workdir={workdir}")
        )
    assert code == 1 and out == ""
    assert re.search(r"cl_bench: .* is in use by process \d+ on", err)
    assert "Traceback" not in err
    assert small_study.files(workdir) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--config.seeds=3", r"backprop\.seeds: \[0,1\] -> \[0,1,2\]"),
        ("--config.method.step_size=0.5", r"hyper\.step_size: 0\.01 -> 0\.5"),
        ("--config.stream.num_tasks=5", r"stream\.num_tasks: 4 -> 5"),
        ("--config.execution.matmul_precision=high", r'"highest" -> "high"'),
        ("--config.study=other", r'study: "small" -> "other"'),
        ("--methods=l2", "small_images: l2: absent -> present"),
    ],
)
def test_a_changed_study_is_refused_with_its_differences(
    finished, cli, change, message
):
    before = small_study.files(finished[1])
    with pytest.raises(provenance.ConfigChangedError, match=message):
        cli(f"--config={finished[0]}", f"--workdir={finished[1]}", change)
    assert small_study.files(finished[1]) == before


def test_how_and_where_it_runs_may_change(finished, cli, tmp_path, capsys):
    cli(
        f"--config={finished[0]}", f"--workdir={finished[1]}", "--noreport",
        "--config.execution.lanes=vmap", f"--config.stream.data_dir='{tmp_path}'",
    )  # fmt: skip
    assert "Nothing to do" in capsys.readouterr().out
