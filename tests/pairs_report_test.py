"""Pollution and similarity in the report: what comes back from the records, and where."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from cl_bench import report
from cl_bench.report import pairs
from tests.forgetting_setting import STEP, make_study, panel_of
from tests.report_page import PACKAGES, Page, browser, opened, read_csv

COLUMNS = {
    "similarity_linear_cka/0_1": 0.6,
    "similarity_linear_cka/0_2": 0.5,
    "similarity_linear_cka/1_2": 0.7,
    "similarity_probe_transfer/2_0": 0.05,
    "pollution_causal/1_by_2": 0.2,
    "pollution_absolute_share/1_by_2/h1": 0.4,
    "pollution_absolute_share/2_by_0/h1": 0.3,
    "pollution_absolute_share/1_by_2/h1/q05": 0.1,
    "pollution_absolute_share/1_by_2/head": 0.8,
}
STREAM = {"name": "transformed", "fraction": 0.5, "identity_first": True}
NAN = np.nan


def pairs_of(folder: Path):
    return panel_of(folder).arms[0].pairs


def test_pairs_come_back_from_the_records(tmp_path):
    found = pairs_of(make_study(tmp_path, also=COLUMNS, arms=("backprop",)))
    assert set(found) == {"similarity", "pollution"}
    cka = np.array([[NAN, 0.6, 0.5], [NAN, NAN, 0.7], [NAN, NAN, NAN]])
    wanted = np.stack([cka + STEP * seed for seed in range(3)])
    np.testing.assert_allclose(found["similarity"]["linear_cka"], wanted)
    assert found["similarity"]["probe_transfer"][1, 2, 0] == pytest.approx(0.06)
    assert found["pollution"]["causal"][0, 1, 2] == pytest.approx(0.2)
    # Of layers, apart from the whole network; an arm that recorded nothing has none.
    parts = {
        part: every
        for name, part, every in pairs.parts([{}, found])
        if name == "pollution"
    }
    assert {part: [list(of) for of in every] for part, every in parts.items()} == {
        "": [[], ["causal"]], "h1": [[], ["absolute_share"]],
        "h1/q05": [[], ["absolute_share"]], "head": [[], ["absolute_share"]],
    }  # fmt: skip
    layer = parts["h1"][1]["absolute_share"]
    assert layer[0, 1, 2] == pytest.approx(0.4)
    assert layer[2, 2, 0] == pytest.approx(0.3 + 2 * STEP)
    assert parts["h1/q05"][1]["absolute_share"][0, 1, 2] == pytest.approx(0.1)
    # A split of classes does not know how alike its tasks are.
    assert "declared" not in found["similarity"]


def test_the_truth_of_a_generated_stream_stands_beside_what_was_measured(tmp_path):
    folder = make_study(tmp_path, also=COLUMNS, arms=("backprop",), stream=STREAM)
    found = pairs_of(folder)["similarity"]["declared"]
    assert next(iter(pairs_of(folder)["similarity"])) == "declared"
    wanted = np.array([[NAN, 0.5, 0.5], [NAN, NAN, 0.25], [NAN, NAN, NAN]])
    np.testing.assert_allclose(found, np.stack([wanted] * 3))


def test_streams_without_a_declared_similarity():
    assert pairs.declared({"stream.name": "permuted"}) is None
    assert pairs.declared({"stream.name": "somebody.elses"}) is None
    assert pairs.declared({}) is None
    turned = {"stream.name": "transformed", "stream.view": "rotate"}
    assert pairs.declared({**turned, "step_size": 0.1}) is None  # angles are drawn


def test_nothing_recorded_is_nothing(tmp_path):
    assert pairs_of(make_study(tmp_path, arms=("backprop",), stream=STREAM)) == {}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    for package in PACKAGES:
        pytest.importorskip(package)
    folder = make_study(tmp_path_factory.mktemp("fake"), also=COLUMNS, stream=STREAM)
    report.build([folder])
    return folder


def test_a_heat_map_for_every_kind_and_arm(built):
    page = Page((built / "report.html").read_text())
    specs = json.loads(page.scripts[0])
    maps = [k for k in specs if k.startswith(("similarity-", "pollution-"))]
    assert len(maps) == 2 * (3 + 1 + 3)  # of similarity, pollution, its parts
    layer = specs["pollution-0-0-0-part1"]["datasets"]["rows"]
    assert {(c["i"], c["j"]): c["mean"] for c in layer} == {(2, 3): 0.41, (3, 1): 0.31}
    assert "layer h1: mean over its neurons" in page.text
    assert "layer h1: 5 % quantile over its neurons" in page.text
    cells = {
        (c["i"], c["j"]): c["mean"]
        for c in specs["similarity-0-0-1"]["datasets"]["rows"]
    }
    assert cells == {(1, 2): 0.61, (1, 3): 0.51, (2, 3): 0.71}
    (probe,) = specs["similarity-0-0-2"]["datasets"]["rows"]
    assert (probe["i"], probe["j"], probe["mean"], probe["n"]) == (3, 1, 6, 3)
    assert "Similarity of task i" in page.text and "Pollution of task i" in page.text


def test_figures_and_a_table_of_pairs(built):
    for name in (
        "similarity.png",
        "similarity.svg",
        "pollution.png",
        "pollution_h1.png",
        "pollution_h1_q05.png",
        "pollution_head.svg",
    ):
        assert (built / "figures" / name).stat().st_size > 5_000
    rows = read_csv(built / "tables" / "task_pairs.csv")
    assert len(rows) == 2 * 3 * (3 + 3 + 1 + 1 + 4)
    places = {(r["layer"], r["quantile"]) for r in rows if "pollution" in r["measure"]}
    assert places == {("", ""), ("h1", ""), ("h1", "q05"), ("head", "")}
    assert {r["layer"] for r in rows if "similarity" in r["measure"]} == {""}
    (one,) = (
        r for r in rows
        if (r["arm"], r["seed"], r["layer"], r["task_i"]) == ("backprop", "1", "h1", "3")
    )  # fmt: skip
    assert (one["measure"], one["task_j"]) == ("pollution_absolute_share", "1")
    assert float(one["value"]) == pytest.approx(0.31)
    at = {(r["arm"], r["seed"], r["measure"], r["task_i"], r["task_j"]) for r in rows}
    assert ("backprop", "2", "similarity_linear_cka", "2", "3") in at
    values = [float(r["value"]) for r in rows if r["measure"] == "similarity_declared"]
    assert sorted(set(values)) == [0.25, 0.5]


@pytest.mark.skipif(browser() is None, reason="no Chromium to open the page with")
def test_every_chart_is_drawn_in_a_browser(built, tmp_path):
    specs = json.loads(Page((built / "report.html").read_text()).scripts[0])
    document = opened(built / "report.html", tmp_path / "profile", "--dump-dom")
    assert f'data-drawn="{len(specs)}"' in document
    assert 'class="chart error"' not in document


def test_arms_share_a_range_of_colours():
    pytest.importorskip("altair")
    pair_charts = importlib.import_module("cl_bench.report.pair_charts")
    first = np.array([[[0.1, NAN], [0.3, 0.2]], [[0.3, NAN], [0.5, 0.4]]])
    arms = [{"causal": first}, {"causal": first - 0.4, "literal": first}, {}]
    found = pair_charts.domains(arms)
    assert found["causal"] == pytest.approx((-20.0, 40.0))  # percent, means over runs
    assert found["absolute_share"] == (0, 1) and "literal" not in found
    assert "causal" not in pair_charts.domains([{}])
