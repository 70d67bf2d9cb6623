"""What the tests of the report share: its page and tables read back, a browser."""

import csv
import importlib.util
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cl_bench import report

PACKAGES = ("altair", "matplotlib", "vl_convert")
needs_extra = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)), reason="extra `report` is absent"
)


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary_of(folder: Path) -> dict[str, dict[str, str]]:
    return {row["arm"]: row for row in read_csv(folder / "tables" / "summary.csv")}


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes seconds; a test of the page alone does without."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("cl_bench.report.figures.write", lambda folder, panels: [])


@pytest.fixture
def tables_only(monkeypatch):
    monkeypatch.setattr(report, "missing", lambda: ["altair"])


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
