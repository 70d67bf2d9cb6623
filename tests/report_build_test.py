"""Building the report: of several studies, by its command, without records or extra."""

import re
import subprocess
import sys

import pytest

from cl_bench import report
from cl_bench.atomic import StoreError
from tests import report_page
from tests.report_page import PACKAGES, needs_extra, read_csv, summary_of
from tests.report_setting import charge, make_study

no_figures = report_page.no_figures
tables_only = report_page.tables_only


@needs_extra
def test_every_table_of_arms_has_what_they_are_charged(tmp_path, no_figures):
    one = make_study(tmp_path / "one")
    two = make_study(tmp_path / "two", name="more", benchmark="other", shift=-0.2)
    charge(one)
    charge(two)
    report.build([one, two])
    page = (one / "report.html").read_text()
    found = [
        table
        for table in re.findall("<table>.*?</table>", page, re.DOTALL)
        if "<span>bytes beyond the network</span>" in table
    ]
    titles = [re.search("<b>(.*?)</b>", table)[1][:13] for table in found]
    each = ["Online accura", "Plasticity.", "Cost."]
    assert titles == ["Online accura", *each, *each]
    for table in found:
        assert re.search("l2 strength=0.1</th>.*<td>49.4 k</td>", table)
        assert re.search("backprop</th>.*<td>0</td>", table)
    assert "anchors centre 49.4 k" in found[-1]
    assert "however often they turn: in l2 strength=0.001, l2" in found[-1]
    assert "<td>3 M</td>" in found[-1]
    for name in ("summary", "plasticity"):
        rows = read_csv(one / "tables" / f"{name}.csv")
        charged = {row["arm"]: row["bytes_beyond_network"] for row in rows}
        assert charged["l2 strength=0.1"] == "49385"
        assert {row["charged_flops_per_step"] for row in rows} == {"120000", "120001"}
    costs = {row["group"]: row for row in read_csv(one / "tables" / "cost.csv")}
    kinds = costs["digits-l2"]["learner_bytes_by_kind"]
    assert kinds == "anchors centre 49385; network 49380"


def test_two_studies_with_the_same_arms_are_told_apart(tmp_path, tables_only):
    one = make_study(tmp_path / "one", name="wide")
    two = make_study(tmp_path / "two", name="narrow", shift=-0.1)
    report.build([one, two], output=tmp_path / "both")
    rows = summary_of(tmp_path / "both")
    assert float(rows["narrow/backprop"]["first"]) == pytest.approx(74)
    assert rows["narrow/continual_backprop"]["baseline"] == "narrow/backprop"
    assert rows["wide/continual_backprop"]["baseline"] == "wide/backprop"
    assert not (one / "report.html").exists()
    same = make_study(tmp_path / "three", name="wide")
    report.build([one, same])
    assert "three/backprop" in summary_of(one)


def test_a_joined_study_without_backprop_is_compared_with_the_others(
    tmp_path, tables_only
):
    one = make_study(tmp_path / "one", name="first")
    mine = {"mine": ("mine", {"step_size": 0.01}, lambda t: 0.9 + 0 * t)}
    two = make_study(tmp_path / "two", name="second", arms=mine)
    other = {"longer": mine["mine"]}
    streams = {"longer": {"steps_per_task": 200}}
    three = make_study(tmp_path / "three", name="third", arms=other, streams=streams)
    report.build([one, two, three], output=tmp_path / "all")
    rows = summary_of(tmp_path / "all")
    assert (rows["mine"]["baseline"], rows["mine"]["pairs"]) == ("backprop", "3")
    backprop = float(rows["backprop"]["last"])
    mean = 90 + 1  # the seeds add 0, 1 and 2 points
    assert float(rows["mine"]["difference"]) == pytest.approx(mean - backprop)
    assert rows["longer"]["baseline"] == ""  # tasks of another length


@needs_extra
def test_two_benchmarks_have_a_joint_table(tmp_path):
    one = make_study(tmp_path / "one")
    two = make_study(tmp_path / "two", name="more", benchmark="other", shift=-0.2)
    report.build([one, two])
    page = (one / "report.html").read_text()
    assert "All benchmarks" in page and 'id="b1"' in page
    assert (one / "figures" / "other_online_accuracy.svg").exists()
    # Every run of continual backprop beats every one of backprop on both.
    assert re.search(
        r"continual_backprop</th><td>2</td>.*<td>100.0<small>100.0 to 100.0", page
    )


def test_no_records_is_an_error_that_names_the_folder(tmp_path, capsys):
    with pytest.raises(StoreError, match="has no records"):
        report.build([tmp_path])
    with pytest.raises(StoreError, match="not a folder"):
        report.build([tmp_path / "absent"])


def test_without_the_extra_the_tables_are_written(tmp_path, tables_only, caplog):
    assert report.build([make_study(tmp_path)]) is None
    assert "pip install 'cl_bench[report]'" in caplog.text
    assert summary_of(tmp_path)["backprop"]["runs"] == "3"
    assert not (tmp_path / "report.html").exists()


def test_the_core_imports_no_plotting_library():
    code = (
        "import sys, cl_bench.report\n"
        f"assert not set({PACKAGES!r}) & set(sys.modules), 'imported too early'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@needs_extra
def test_command_line(tmp_path):
    one = make_study(tmp_path / "one")
    two = make_study(tmp_path / "two", name="other", benchmark="second")
    command = [sys.executable, "-m", "cl_bench.report"]
    done = subprocess.run(
        [*command, f"--workdir={one}", str(two), f"--output={tmp_path / 'out'}"],
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out" / "report.html")
    failed = subprocess.run(
        [*command, "--workdir=absent"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert failed.returncode == 1
    assert "absent is not a folder" in failed.stderr
    failed = subprocess.run(
        [*command, f"--workdir={one}", f"--workdir={two}"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert failed.returncode == 1 and "Give --output=DIR" in failed.stderr
    assert not (one / "tables").exists()
    assert "Traceback" not in failed.stderr
