"""The report of a made-up study whose numbers are known, in files and in a browser."""

import json
import re

import pytest

from cl_bench import report
from cl_bench.report import labels, panels, studies, sweeps
from tests.report_page import Page, browser, needs_extra, opened, read_csv, summary_of
from tests.report_setting import TASKS, make_study

EVIL = "l2 <script>alert(1)</script> & $x_1^2$ \"quoted\" 'too' {{x}} </script>"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp("fake"), rename=EVIL)
    report.build([folder])
    return folder


def test_summary_against_hand_computation(built):
    rows = summary_of(built)
    found = rows["backprop"]
    # Tasks 36..39 (from 0) are the last tenth: mean 37.5; seeds add 0, 1, 2 points.
    assert float(found["last"]) == pytest.approx(83 - 0.5 * 37.5 + 1)
    assert float(found["first"]) == pytest.approx(84)
    assert float(found["stream"]) == pytest.approx(83 - 0.5 * 19.5 + 1)
    assert (float(found["best"]), found["best_task"]) == (pytest.approx(84), "1")
    # With 3 runs spaced by a point the bootstrap reaches to the lowest and highest.
    assert float(found["last_low"]) == pytest.approx(83 - 0.5 * 37.5)
    assert float(found["last_high"]) == pytest.approx(83 - 0.5 * 37.5 + 2)
    assert found["difference"] == "" and found["baseline"] == ""


def test_difference_is_paired_by_seed(built):
    found = summary_of(built)["continual_backprop"]
    # Every seed differs by the same amount: the paired interval has no width.
    for key in ("difference", "difference_low", "difference_high"):
        assert float(found[key]) == pytest.approx(84 - (83 - 0.5 * 37.5))
    assert (found["baseline"], found["pairs"]) == ("backprop", "3")


def test_a_diverged_run_counts_as_the_worst(built):
    found = summary_of(built)["l2 strength=0.1"]
    last = 80 - 0.1 * 37.5
    assert found["diverged"] == "1"
    assert float(found["last"]) == pytest.approx((last + (last + 1) + 0) / 3)
    assert float(found["last_low"]) == pytest.approx(0, abs=1e-9)
    curves = [
        row
        for row in read_csv(built / "tables" / "curves.csv")
        if row["arm"] == "l2 strength=0.1" and row["task"] in ("20", "21")
    ]
    at = {(row["metric"], row["task"]): row for row in curves}
    before, after = at["online_accuracy", "20"], at["online_accuracy", "21"]
    assert float(before["mean"]) == pytest.approx(80 - 1.9 + 1)
    assert float(after["mean"]) == pytest.approx((2 * (80 - 2.0) + 1) / 3)
    # What a broken network measures of itself is left out, not averaged in.
    assert at["dead_units", "20"]["runs"] == "3"
    assert at["dead_units", "21"]["runs"] == "2"


def test_segments_become_tasks(built):
    rows = read_csv(built / "tables" / "curves.csv")
    dead = [r for r in rows if r["arm"] == "backprop" and r["metric"] == "dead_units"]
    assert [r["task"] for r in dead] == [str(t) for t in range(1, TASKS + 1)]
    assert float(dead[-1]["mean"]) == pytest.approx(0.5 * 39)
    assert dead[-1]["unit"] == "%"


def test_costs(built):
    groups = {row["group"]: row for row in read_csv(built / "tables" / "cost.csv")}
    assert float(groups["digits-l2"]["flops_per_step"]) == 1.2e5
    assert groups["digits-l2"]["lanes"] == "9"
    # Three of the nine lanes of a 30 s group.
    assert float(summary_of(built)["l2 strength=0.1"]["wall_seconds"]) == 10.0


def test_what_an_earlier_version_did_not_record_is_empty(built):
    rows = summary_of(built)
    names = "bytes_beyond_network", "charged_flops_per_step", "flops_per_task"
    assert [rows["backprop"][name] for name in names] == ["", "", ""]
    assert rows["backprop"]["learner_bytes"] == "98765"
    (row, *_) = read_csv(built / "tables" / "cost.csv")
    assert row["learner_bytes_by_kind"] == ""


@needs_extra
def test_an_oracle_is_marked_wherever_its_arm_stands(built):
    for name in ("summary", "plasticity", "curves", "cost"):
        rows = read_csv(built / "tables" / f"{name}.csv")
        named = {row["arms" if name == "cost" else "arm"] for row in rows}
        assert "full_reset" not in named and "full_reset (oracle)" in named, name
    markup = (built / "report.html").read_text()
    names = names_in(json.loads(Page(markup).scripts[0]))
    assert "full_reset" not in names and "full_reset (oracle)" in names
    cells = re.findall(r'<th scope="row">(.*?)</th>', markup, re.DOTALL)
    own = [cell for cell in cells if "full_reset" in cell]
    assert len(own) >= 4 and all("full_reset (oracle)" in cell for cell in own)
    prose = re.sub(r"<(script|code)\b.*?</\1>|<[^>]*>", " ", markup, flags=re.DOTALL)
    assert not re.search(r"full_reset(?! \(oracle\))", prose)


def test_sweeps_find_what_varies(built):
    (panel,) = panels.join([studies.load(built)])
    (sweep,) = sweeps.sweeps(panel)
    assert (sweep.method, sweep.setting, sweep.scale) == ("l2", "strength", "log")
    assert [point.value for point in sweep.points] == [0.001, 0.01, 0.1]
    assert sweep.points[1].score.estimate == pytest.approx(81 - 0.2 * 37.5 + 1)


def test_widths_are_swept_in_the_order_of_their_numbers(tmp_path):
    arms = {f"backprop {n}": ("backprop", {}, lambda task: 0.4) for n in "abc"}
    (panel,) = panels.join([studies.load(make_study(tmp_path, arms=arms, tasks=2))])
    widths = ([300, 300], [30, 30], [100, 100])
    wider = [
        arm._replace(settings=arm.settings | {"network.widths": value})
        for arm, value in zip(panel.arms, widths, strict=True)
    ]
    (sweep,) = sweeps.sweeps(panel._replace(arms=wider))
    assert [point.text for point in sweep.points] == ["30x30", "100x100", "300x300"]
    assert [text for text, _ in sweep.best_arms] == ["30x30", "100x100", "300x300"]
    assert sweep.scale == "category"


@needs_extra
def test_paper_figures(built):
    figures = built / "figures"
    for name in (
        "online_accuracy", "dead_units", "dead_units_by_layer", "weight_magnitude",
        "my_metric", "diverged", "sweep_l2_strength",
    ):  # fmt: skip
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (figures / f"{name}.svg").read_text()


@needs_extra
def test_page_is_self_contained(built):
    markup = (built / "report.html").read_text()
    page = Page(markup)
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    ids = {a["id"] for _, a in page.tags if "id" in a}
    links = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert links <= ids
    assert not re.search(r"@import|url\(", markup[: markup.index("<script")])
    assert len(markup) < 2_500_000


def names_in(value) -> set[str]:
    """Every string of some JSON data."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return set().union(*map(names_in, inner))
    return {value} if isinstance(value, str) else set()


@needs_extra
def test_names_are_escaped(built):
    markup = (built / "report.html").read_text()
    page = Page(markup)
    assert len(page.scripts) == 2  # the data and the program, nothing injected
    specs = json.loads(page.scripts[0])
    assert EVIL in names_in(specs)
    assert EVIL in page.text
    assert "<script>alert" not in markup


@needs_extra
def test_tables_have_headers_and_figures_captions(built):
    page = Page((built / "report.html").read_text())
    count = [tag for tag, _ in page.tags].count
    assert count("table") == count("caption") >= 3
    assert count("figure") == count("figcaption") >= 8
    scopes = [a.get("scope") for tag, a in page.tags if tag == "th"]
    assert scopes and set(scopes) == {"col", "row"}
    charts = [a for _, a in page.tags if a.get("class") == "chart"]
    assert charts and all(a["role"] == "img" and a["aria-label"] for a in charts)
    assert "share of hidden units" in page.text
    assert "abc123" in page.text and "'--config=a b.py'" in page.text


CLICK = """
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
while (!document.body.dataset.drawn) await wait(50);
const name = document.querySelectorAll("#curves-0-0 .role-legend-label text")[1];
const at = name.getBoundingClientRect();
const place = { bubbles: true, clientX: at.x + 5, clientY: at.y + 5, view: window };
for (const kind of ["pointerdown", "mousedown", "pointerup", "mouseup", "click"])
  name.dispatchEvent(new MouseEvent(kind, place));
await wait(1500);
const lines = document.querySelectorAll("#curves-0-1 .mark-line path");
document.body.dataset.opacity = [...lines].map((p) => p.getAttribute("opacity"));
"""


@needs_extra
@pytest.mark.skipif(browser() is None, reason="no Chromium to open the page with")
def test_every_chart_is_drawn_and_legends_are_linked_in_a_browser(built, tmp_path):
    head, tail = (built / "report.html").read_text().rsplit("</body>", 1)
    page = tmp_path / "page.html"
    page.write_text(f'{head}<script type="module">{CLICK}</script></body>{tail}')
    specs = json.loads(Page(head).scripts[0])
    document = opened(page, tmp_path / "profile", "--dump-dom")
    assert f'data-drawn="{len(specs)}"' in document
    assert 'class="chart error"' not in document
    assert document.count('<svg xmlns="http://www.w3.org/2000/svg"') == len(specs)
    for color in ("#3A3A3A", "#0072B2"):
        assert f'stroke="{color}"' in document
    # The second arm was picked in the first figure: the second figure follows.
    assert 'data-opacity="0.12,1,0.12,0.12,0.12,0.12"' in document


def test_every_metric_component_has_a_label():
    recorded = {
        "online_accuracy", "online_loss", "dead_units", "dormant_units_dohare",
        "dormant_units_sokar", "effective_rank", "approximate_rank",
        "abs_approximate_rank", "weight_magnitude", "gradient_norm", "diverged",
    }  # fmt: skip
    assert recorded <= set(labels.LABELS)
    assert all(labels.LABELS[name].formula for name in recorded)
    assert labels.axis_title("dead_units/h1") == "Dead units (h1) (%)"
    assert labels.label("my_metric") == labels.Label("My metric")
