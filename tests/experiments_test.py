"""The experiments: all are here, and every argument expands to distinct arms.

Nothing is trained, and the data sets are stand-ins.
"""

import itertools
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from absl import flags

from cl_bench import components, config, study, sweeps
from cl_bench.fields import ConfigError
from tests import experiment_setting

FOLDER = Path(__file__).parent.parent / "experiments"
# File -> its arguments: the names of its constants, or the words themselves.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "class_incremental": ("MODES",),
    "continual_imagenet": ("MODES", "ARMS"),
    "kumar": ("PROBLEMS", "OPTIMIZERS"),
    "low_rank_and_consolidation": ("ARMS", "MODES"),
    "online_permuted_mnist": ("MODES", "ARMS"),
    "permuted_mnist_tasks": ("PROTOCOLS", "MODES"),
    "pooled_noise": (("study", "smoke"),),
    "quickstart": (("study", "smoke"),),
    "remembering": ("SCENARIOS", "MODES"),
    "slowly_changing_regression": ("MODES", "ARMS"),
    "split_mnist": (("all", "task", "domain", "class"), "MODES"),
    "upgd_streams": ("STREAMS", "ARMS"),
    "warm_start": ("STREAMS", "MODES"),
}
REFUSED = {  # and their headers say so
    "permuted_mnist_tasks:van_de_ven,checks": "checks are of the protocol gpm",
    "upgd_streams:lp_cifar,control": "control is of the stream ipm",
    "upgd_streams:lp_emnist,control": "control is of the stream ipm",
}


stand_ins = experiment_setting.stand_ins  # for every test of this file


def specs(name):
    """Every combination of the arguments of an experiment."""
    config.load(name)
    module = sys.modules[f"cl_bench_experiment_{name}"]
    words = [getattr(module, w) if isinstance(w, str) else w for w in ARGUMENTS[name]]
    return [f"{name}:{','.join(chosen)}" for chosen in itertools.product(*words)]


def test_every_experiment_is_here():
    files = {p.stem for p in FOLDER.glob("*.py") if "def get_config(" in p.read_text()}
    assert files == set(ARGUMENTS)


@pytest.mark.parametrize("spec", [s for name in ARGUMENTS for s in specs(name)])
def test_every_argument_gives_a_study_of_distinct_arms(spec):
    if spec in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[spec]):
            config.load(spec)
        return
    experiment = config.load(spec)
    runs = study.expand(experiment.config, experiment.sweep)
    arms = sweeps.collect(config.settings(experiment.config), experiment.sweep)
    names = [(arm.label, arm.sections.get("benchmark")) for arm in arms]
    assert len(set(names)) == len(names)
    lanes = Counter((run.benchmark, run.arm) for run in runs)
    assert set(lanes.values()) == {len({run.seed for run in runs})}
    assert len(lanes) >= len(arms)  # none is another's, under a second name


def script(name):
    """What a script defines, but for its flags."""
    before = set(flags.FLAGS)
    found = runpy.run_path(str(FOLDER / name))
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    return found


def test_every_method_that_is_timed_can_be_made():
    timed = script("forgetting_speed.py")
    for arm in timed["ARMS"]:
        made, method = timed["parts_of"](arm, "mnist", 2_000)
        components.make_method(made, method)
    timed = script("speed.py")
    for settings in (timed["ARMS"] | timed["MORE"]).values():
        components.resolve("method", settings)
