"""Records -> tables, figures, and one self-contained HTML page."""

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

from cl_bench.atomic import StoreError
from cl_bench.registry import nearest
from cl_bench.report import tables
from cl_bench.report.panels import join
from cl_bench.report.plasticity import FIRST_TASKS
from cl_bench.report.pooling import pooled
from cl_bench.report.studies import load
from cl_bench.report.summary import summarise

_log = logging.getLogger(__name__)
EXTRA = ("altair", "vl_convert", "matplotlib")
INSTALL = "pip install 'cl_bench[report]'"


def build(
    workdirs: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    first_tasks: int = FIRST_TASKS,
    score: str | None = None,
) -> Path | None:
    """Builds the report of one study, or of several joined, finished or not.

    Writes report.html, figures/*.png and *.svg, and tables/*.csv into `output`
    (default: the first workdir). Workdirs of one study that differ in seeds are pooled;
    other arms of one name are told apart by their study.
    The plasticity loss is that from the first `first_tasks` tasks to the last tenth.
    `score` is the metric to rank by, sweep and compare (default: see `panels.join`).

    Returns: the page's path; None, with a logged warning, where the extra `report` is
    not installed: then there are only the tables.

    Raises StoreError where a workdir holds no records or is damaged, and where no
    benchmark has recorded `score`.
    """
    several = [workdirs] if isinstance(workdirs, str | Path) else list(workdirs)
    studies = [load(folder) for folder in dict.fromkeys(map(Path, several))]
    target = Path(output) if output is not None else studies[0].workdir
    panels = join(pooled(studies), score)
    if score and not any(panel.score == score for panel in panels):
        known = list(dict.fromkeys(m for panel in panels for m in panel.metrics))
        raise StoreError(f"No metric {score!r} was recorded.{nearest(score, known)}")
    rows = [summarise(panel, first_tasks) for panel in panels]
    groups = tables.ledger(panels)
    tables.write(target / "tables", panels, rows, groups)
    if lacking := missing():
        _log.warning(
            "No report.html and no figures: %s not installed. Install with: %s. "
            "The tables are in %s.",
            " and ".join(lacking) + (" is" if len(lacking) == 1 else " are"),
            INSTALL,
            target / "tables",
        )
        return None
    from cl_bench.report import figures, page  # need the extra

    figures.write(target / "figures", panels)
    page.write(target / "report.html", studies, panels, rows, groups)
    return target / "report.html"


def missing() -> list[str]:
    """Packages of the extra `report` that are not installed."""
    return [name for name in EXTRA if importlib.util.find_spec(name) is None]
