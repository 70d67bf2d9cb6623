"""The files that the README has its readers write do what it says."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from cl_bench import config, study, testing

README = (Path(__file__).parents[1] / "README.md").read_text()
FILES = re.findall(
    r"Save this as `(\w+)\.py`[^\n]*\n\n```python\n(.*?)```", README, re.DOTALL
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Both files, in a folder that modules are imported from."""
    for name, text in FILES:
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_there_are_a_method_and_an_experiment():
    assert [name for name, _ in FILES] == ["sign_descent", "my_study"]


@pytest.mark.usefixtures("folder")
def test_the_method_passes_the_conformance_test():
    testing.check_method(importlib.import_module("sign_descent"))


def test_the_experiment_is_a_study(folder):
    made = config.load(str(folder / "my_study.py"))
    runs = study.expand(made.config, made.sweep)
    assert len({run.arm for run in runs}) > 1
