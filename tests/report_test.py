"""The report of a made-up study whose numbers are known, in files and in a browser."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cl_bench import parts, report
from cl_bench.atomic import StoreError, write_json
from cl_bench.report import labels, panels, studies, summary, sweeps

EVIL = "l2 <script>alert(1)</script> & $x_1^2$ \"quoted\" 'too' {{x}} </script>"
TASKS, SEEDS = 40, 3
PACKAGES = ("altair", "matplotlib", "vl_convert")
needs_extra = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)), reason="extra `report` is absent"
)
ARMS = {  # label -> method, settings, accuracy at a task (seed 0)
    "backprop": ("backprop", {"step_size": 0.01}, lambda t: 0.83 - 0.005 * t),
    "continual_backprop": (
        "continual_backprop",
        {"step_size": 0.01, "replacement_rate": 1e-4},
        lambda t: 0.84 + 0 * t,
    ),
    "l2 strength=0.001": (
        "l2", {"step_size": 0.01, "strength": 0.001}, lambda t: 0.82 - 0.003 * t,
    ),
    "l2 strength=0.01": (
        "l2", {"step_size": 0.01, "strength": 0.01}, lambda t: 0.81 - 0.002 * t,
    ),
    "l2 strength=0.1": (
        "l2", {"step_size": 0.01, "strength": 0.1}, lambda t: 0.80 - 0.001 * t,
    ),
    "full_reset": ("full_reset", {"step_size": 0.01}, lambda t: 0.81 + 0 * t),
}  # fmt: skip
DIVERGED = ("l2 strength=0.1", 2, 20)  # arm, seed, task from which it is NaN


def make_study(
    folder: Path, *, name="fake", benchmark="digits", seeds=SEEDS, tasks=TASKS,
    arms=ARMS, rename=None, shift=0.0, noise=0.0, only_tasks=None, streams=None,
) -> Path:  # fmt: skip
    """A workdir with two segments a task: start metrics on the first, scores last.

    Tasks have 100 steps; `streams` are settings of an arm's own stream, by its label.
    """
    rng = np.random.default_rng(0)
    kinds = {"task": np.int32, "segment": np.int32}
    described, rows = [], []
    for label, (method, hyper, accuracy) in arms.items():
        shown = rename or label if label.startswith("l2 strength=0.001") else label
        stream = {"name": "permuted", "num_tasks": tasks} | (streams or {}).get(
            label, {}
        )
        steps = stream.get("steps_per_task", 100)
        for seed in range(seeds):
            run_id = f"{benchmark}-{label}-{seed}"
            group = f"{benchmark}-{method}"
            described.append(
                {
                    "run_id": run_id, "group": group, "study": name,
                    "benchmark": benchmark, "arm": shown, "method": method,
                    "stream": "permuted", "network": "mlp", "seed": seed,
                    "oracle": method == "full_reset", "hyper": hyper,
                    "stream_config": stream,
                    "network_config": {"name": "mlp", "widths": [100, 100]},
                }
            )  # fmt: skip
            for task in range(only_tasks or stream["num_tasks"]):
                bad = (label, seed) == DIVERGED[:2] and task >= DIVERGED[2]
                score = accuracy(task) + shift + 0.01 * seed + noise * rng.normal()
                dead = 0.005 * task if method == "backprop" else 0.001 * seed
                row = {
                    "run_id": run_id, "study": name, "benchmark": benchmark,
                    "stream": "permuted", "network": "mlp", "method": method,
                    "arm": shown, "seed": seed, "task": task,
                    # An arg max over NaN is still a class: the accuracy looks fine.
                    "online_accuracy": 0.1 if bad else score,
                    "online_loss": np.nan if bad else 1 - score,
                    "diverged": float(bad), "weight_magnitude": np.nan,
                    "dead_units": np.nan, "dead_units/h1": np.nan,
                    "dead_units/h2": np.nan, "my_metric": 3.0 * seed + task,
                }  # fmt: skip
                start = {k: v for k, v in row.items() if isinstance(v, int | str)} | {
                    "segment": 0, "step": steps * task + steps // 2,
                    "online_accuracy": np.nan, "online_loss": np.nan,
                    "diverged": np.nan, "my_metric": np.nan,
                    "weight_magnitude": 0.05 + 0.001 * task,
                    "dead_units": dead, "dead_units/h1": dead, "dead_units/h2": dead / 2,
                }  # fmt: skip
                rows += [start, row | {"segment": 1, "step": steps * task + steps}]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "runs.json", described)
    write_json(folder / "config.json", {"study": name, "seeds": seeds})
    write_json(
        folder / "provenance.json",
        {
            "versions": {"jax": "0.10.2"}, "device": {"kind": "cpu", "cores": 2},
            "git": {"commit": "abc123", "dirty": False},
            "command_line": ["main", "--config=a b.py"], "wall_seconds": 61.0,
        },
    )  # fmt: skip
    for group in dict.fromkeys(run["group"] for run in described):
        own = {run["run_id"] for run in described if run["group"] == group}
        part = [row for row in rows if row["run_id"] in own]
        columns = {
            key: np.array([row[key] for row in part], kinds.get(key)) for key in part[0]
        }
        (folder / "groups" / group).mkdir(parents=True)
        parts.write_part(folder / "groups" / group, 0, columns, 0, 2 * tasks)
        write_json(
            folder / "groups" / group / "group.json",
            {
                "lanes": len(own), "lane_width": 3, "strategy": "map",
                "device": "cpu", "compile_seconds": 2.5, "wall_seconds": 30.0,
                "flops_per_step": 1.2e5, "bytes_per_step": 4e5, "parameters": 12_345,
                "learner_bytes": 98_765, "lane_steps_per_second": 51_200.0,
            },
        )  # fmt: skip
    return folder


def charge(folder: Path) -> None:
    """Adds what earlier versions did not record; l2's arms carry anchors."""
    for path in folder.glob("groups/*/group.json"):
        facts = json.loads(path.read_text())
        heavy = path.parent.name.endswith("l2")
        kinds = {"network": 49_380} | ({"anchors centre": 49_385} if heavy else {})
        write_json(
            path,
            facts | {
                "flops_per_task": 3e6 * heavy, "charged_flops_per_step": 1.2e5 + heavy,
                "loops_counted_once": int(heavy), "learner_bytes_by_kind": kinds,
                "bytes_beyond_network": 49_385 * heavy,
            },
        )  # fmt: skip


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary_of(folder: Path) -> dict[str, dict[str, str]]:
    return {row["arm"]: row for row in read_csv(folder / "tables" / "summary.csv")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp("fake"), rename=EVIL)
    report.build([folder])
    return folder


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes seconds; a test of the page alone does without."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("cl_bench.report.figures.write", lambda folder, panels: [])


@pytest.fixture
def tables_only(monkeypatch):
    monkeypatch.setattr(report, "missing", lambda: ["altair"])


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


def test_sweeps_find_what_varies(built):
    (panel,) = panels.join([studies.load(built)])
    (sweep,) = sweeps.sweeps(panel)
    assert (sweep.method, sweep.setting, sweep.scale) == ("l2", "strength", "log")
    assert [point.value for point in sweep.points] == [0.001, 0.01, 0.1]
    assert sweep.points[1].score.estimate == pytest.approx(81 - 0.2 * 37.5 + 1)


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
    assert "Traceback" not in failed.stderr


@needs_extra
def test_paper_figures(built):
    figures = built / "figures"
    for name in (
        "online_accuracy", "dead_units", "dead_units_by_layer", "weight_magnitude",
        "my_metric", "diverged", "sweep_l2_strength",
    ):  # fmt: skip
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (figures / f"{name}.svg").read_text()


class Page(HTMLParser):
    """Tags, attributes, and the text outside scripts and styles."""

    def __init__(self, markup: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        inside = self.tags[-1][0] if self.tags else ""
        if inside == "script":
            self.scripts[-1] += data
        elif inside != "style":
            self.text += data


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


def browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def opened(page: Path, profile: Path, *flags: str) -> str:
    """The page's document after its program has run, without any network."""
    return subprocess.run(
        [
            browser() or "", "--headless", "--no-sandbox", "--disable-gpu",
            "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
            "--virtual-time-budget=8000", *flags, page.resolve().as_uri(),
        ],
        capture_output=True, text=True, timeout=180, check=True,
    ).stdout  # fmt: skip


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
