"""The page of the forgetting section: its tables, notes, charts and figures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cl_bench import report
from cl_bench.report import accuracies
from cl_bench.report.accuracies import Accuracies
from tests import report_page
from tests.forgetting_setting import EVIL, NAN, REFERENCES, make_study, panel_of
from tests.report_page import Page, browser, needs_extra, opened, read_csv

no_figures = report_page.no_figures


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = make_study(tmp_path_factory.mktemp("fake"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cl_bench.report.figures.write", lambda folder, panels: [])
        report.build([folder])
    return folder


def section(page: str) -> str:
    found = page[: page.index("<b>Remembering.</b>")].rindex("<table")
    return page[found : page.index("</details>", found)]


@needs_extra
def test_what_the_average_accuracy_loses_is_not_called_plasticity(
    built, tmp_path, no_figures
):
    assert "<b>Plasticity.</b>" in (built / "report.html").read_text()
    page = report.build([built], tmp_path, score="average_accuracy_so_far")
    assert page is not None
    assert "<b>Plasticity.</b>" not in page.read_text()


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
    assert 'scope="col">Intransigence, all tasks<' in found
    assert 'scope="col">Intransigence<' not in found
    assert "at the end on task j of offline, trained on all tasks together" in found
    assert 'scope="col">Normalised plasticity' in found and "of full_reset" in found
    rows = read_csv(tmp_path / "tables" / "forgetting.csv")
    assert [row["joint_reference"] for row in rows] == ["offline", "", "offline"]
    assert not any(row["cumulative_reference"] for row in rows)
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
