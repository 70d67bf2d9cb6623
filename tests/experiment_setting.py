"""The runs of the experiments, on stand-ins of the data sets."""

import pytest

from cl_bench import components, config, study
from tests.stand_in_data import stand_in


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    stand_in(monkeypatch)


def runs_of(spec, **overrides):
    """The runs of a study; overrides with __ for the dot."""
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    experiment = config.load(spec)
    return study.expand(experiment.config, experiment.sweep, overrides=changed)


def arms_of(spec, **overrides):
    """Arm -> one of its runs."""
    return {run.arm: run for run in runs_of(spec, **overrides)}


def parts_of(run):
    return components.make(run.stream, run.network, run.metrics, run.method)
