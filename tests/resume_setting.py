"""What the tests of resuming share: a study, and its records without interruption.

The tests of a file share one compiled program and one set of such records.
"""

from pathlib import Path

import pytest

from cl_bench import config, cost, main, study
from tests import small_study


@pytest.fixture(scope="module")
def quick():
    """Starting a study again in this process costs nothing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_study.compile_once(monkeypatch)
        counted = dict.fromkeys(cost.FIELDS, 1)
        monkeypatch.setattr(cost, "measure", lambda *_: counted)
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory, quick):
    """The bits of the records where nothing interrupts the study."""
    folder = tmp_path_factory.mktemp("whole")
    small_study.launch_all(small_study.settings(folder), folder / "out")
    return small_study.bits(folder / "out")


@pytest.fixture
def whole(tmp_path, expected):
    """A study, and the bits of its records where nothing interrupts it."""
    return small_study.settings(tmp_path), expected


def run_main(cfg, workdir: Path) -> None:
    """What the command does, less its flags."""
    execution = config.settings(cfg)["execution"]
    main.run_study(workdir, study.expand(cfg), execution, {}, with_report=False)
