"""Overrides and chosen methods: what they reach, replace and keep, and mistakes."""

import pytest

from cl_bench import study
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError
from tests.study_setting import arms, hypers, methods_sweep, rates_sweep, small


def test_an_override_applies_to_every_arm_that_has_the_setting():
    overrides = {"method.step_size": 0.3, "method.strength": 0.7}
    runs = study.expand(small(), methods_sweep, overrides=overrides)
    assert hypers(runs, "step_size") == [0.3] * 3
    assert hypers(runs, "strength") == [None, 0.7, None]


def test_an_override_takes_the_place_of_a_swept_list():
    def sweep(add, config):
        del config
        add("backprop", method={"step_size": [0.1, 0.2]})

    runs = study.expand(small(), sweep, overrides={"method.step_size": 0.3})
    assert arms(runs) == ["backprop"]
    assert hypers(runs, "step_size") == [0.3]


def test_an_overriding_list_sweeps():
    runs = study.expand(small(), overrides={"method.step_size": [0.1, 0.2]})
    assert arms(runs) == ["backprop step_size=0.1", "backprop step_size=0.2"]


def test_overriding_the_method_derives_its_defaults_anew():
    overrides = {"method.strength": 1e-3, "method.name": "l2"}
    runs = study.expand(small(), overrides=overrides)
    assert {(run.method, run.arm) for run in runs} == {("l2", "l2")}
    assert hypers(runs, "strength") == [1e-3]
    assert hypers(runs, "step_size") == [0.02]


def test_overriding_the_method_keeps_the_other_settings_of_the_arms():
    overrides = {"method.name": "head_reset", "stream.offers": ("boundaries",)}
    runs = study.expand(small(), rates_sweep, overrides=overrides)
    assert arms(runs) == [
        "head_reset steps_per_task=20",
        "head_reset steps_per_task=40",
    ]
    assert {run.method for run in runs} == {"head_reset"}


def test_overriding_the_stream_keeps_what_the_new_one_has_too():
    run = study.expand(small(), overrides={"stream.name": "stationary"})[0]
    assert run.stream["name"] == "stationary"
    assert run.stream["num_tasks"] == 2
    assert run.stream["flatten"] is True


def test_overrides_reach_metrics_oracle_and_seeds():
    overrides = {"metrics": "dead_units", "seeds": (5,), "stream.num_tasks": 3}
    (run,) = study.expand(small(), overrides=overrides)
    assert run.metrics == ({"name": "dead_units", "examples": 2000},)
    assert run.seed == 5
    assert run.stream["num_tasks"] == 3


def test_chosen_methods_keep_their_arms_and_others_get_defaults():
    runs = study.expand(small(), methods_sweep, methods=["l2", "shrink_perturb"])
    assert arms(runs) == ["decayed", "shrink_perturb"]
    assert hypers(runs, "strength") == [0.5, None]
    assert hypers(runs, "step_size") == [0.02, 0.02]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method.step_sise": 1}, "Did you mean 'step_size'"),
        ({"stream.num_task": 1}, "Did you mean 'num_tasks'"),
        ({"network.width": (1,)}, "Did you mean 'widths'"),
        ({"method.name": "backpropp"}, "Did you mean 'backprop'"),
        ({"stream.name": "permutedd"}, "Did you mean 'permuted'"),
        ({"metrics": "dead_unit"}, "Did you mean 'dead_units'"),
    ],
)
def test_mistyped_overrides_name_the_nearest(overrides, message):
    with pytest.raises(UnknownNameError, match=message):
        study.expand(small(), overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method.step_size": "abc"}, r"config\.method\.step_size = 'abc'"),
        ({"method.step_size": -1.0}, r"config\.method\.step_size = -1\.0.*0 or more"),
        ({"method.step_size": [0.1, -1.0]}, r"config\.method\.step_size = -1\.0"),
        ({"stream.num_tasks": -1}, r"config\.stream\.num_tasks = -1"),
        ({"stream.held_out_batch": 0}, r"config\.stream\.held_out_batch = 0"),
        (
            {"stream.num_tasks": 300, "stream.steps_per_task": 10**7},
            r"config\.stream \(permuted\): 3,000,000,000 steps.* 214 tasks of",
        ),
        (
            {"stream.num_tasks": 10**12, "stream.steps_per_task": 1},
            r"config\.stream \(permuted\): .* 2147483647 tasks of 1 steps",
        ),
        ({"network.widths": 5}, r"config\.network\.widths = 5"),
        ({"method.optimizer": "sgdd"}, r"config\.method \(backprop\).*sgdd"),
        ({"network.activation": "rellu"}, r"config\.network \(mlp\).*rellu"),
        ({"metrics": "dead_units,dead_units"}, "stands there twice"),
    ],
)
def test_bad_values_are_refused_before_anything_runs(overrides, message):
    with pytest.raises(ConfigError, match=message):
        study.expand(small(), overrides=overrides)
