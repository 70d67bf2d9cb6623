"""Config and sweep -> runs: arms, products, benchmarks and what is refused."""

import logging

import pytest

from cl_bench import study
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError
from tests.study_setting import arms, hypers, methods_sweep, rates_sweep, small


def test_without_a_sweep_the_config_is_the_only_arm():
    runs = study.expand(small())
    assert [(run.arm, run.seed) for run in runs] == [("backprop", 0), ("backprop", 1)]
    first = runs[0]
    assert first.study == first.benchmark == "small"
    expected = {"name": "mlp", "widths": (5,), "activation": "relu", "init": "kaiming"}
    assert first.network.items() >= expected.items()
    assert first.network["spare_units"] == 0  # a default is written out
    assert first.hyper["step_size"] == 0.02  # the config's
    assert first.hyper["optimizer"] == "sgd"  # the component's default
    assert first.metrics == ({"name": "online_accuracy"},)
    assert not first.oracle


def test_arms_derive_the_defaults_of_their_own_method():
    runs = study.expand(small(), methods_sweep)
    assert arms(runs) == ["backprop", "decayed", "replacing"]
    assert hypers(runs, "strength") == [None, 0.5, None]
    assert hypers(runs, "replacement_rate") == [None, None, 0.1]
    assert hypers(runs, "step_size") == [0.02] * 3  # the optimiser's are shared


def test_a_methods_own_settings_are_not_handed_to_another():
    own = {"name": "shrink_perturb", "noise_std": 9.0, "step_size": 0.5}
    other = {"method.name": "boundary_shrink_perturb", "oracle": True}
    run = study.expand(small(method=own), overrides=other)[0]
    assert run.hyper["noise_std"] == 0.01  # its own default, not another method's 9
    assert run.hyper["step_size"] == 0.5


def test_lists_are_multiplied_out_and_labelled():
    def sweep(add, config):
        del config
        add(
            "backprop",
            method={"step_size": [0.01, 0.003], "momentum": [0.0, 0.9]},
            network={"widths": [(4,), (6, 6)]},
        )

    runs = study.expand(small(seeds=1), sweep)
    assert len(runs) == 8
    assert runs[0].arm == "backprop widths=4 step_size=0.01 momentum=0"
    assert runs[-1].arm == "backprop widths=6x6 step_size=0.003 momentum=0.9"
    assert runs[-1].network["widths"] == (6, 6)
    assert runs[-1].hyper["step_size"] == 0.003


def test_a_list_that_only_fits_as_a_whole_is_a_tuple():
    run = study.expand(small(network={"name": "mlp", "widths": [5, 6]}))[0]
    assert run.network["widths"] == (5, 6)
    assert run.arm == "backprop"


def test_an_empty_list_is_refused():
    with pytest.raises(ConfigError, match=r"config\.method\.step_size = \[\]"):
        study.expand(small(method={"name": "backprop", "step_size": []}))


def write_benchmark(folder, name, tasks, seeds, score=""):
    (folder / f"{name}.py").write_text(
        "from cl_bench import config\n"
        "def get_config(arg=''):\n"
        f"    return config.study(name='{name}', seeds={seeds}, score='{score}',\n"
        f"        stream={{'name': 'permuted', 'num_tasks': {tasks}}},\n"
        "        network={'name': 'mlp', 'widths': (3,)},\n"
        "        metrics=('dead_units',), method={'name': 'l2', 'step_size': 7.0})\n"
    )
    return str(folder / f"{name}.py")


def test_benchmarks_of_other_experiments(tmp_path):
    places = [
        write_benchmark(tmp_path, "a", 3, 1),
        write_benchmark(tmp_path, "b", 4, 2),
    ]
    runs = study.expand(small(), methods_sweep, benchmarks=places)
    names = ["backprop", "decayed", "replacing"]
    expected = [("a", arm, 3, 0) for arm in names]
    expected += [("b", arm, 4, seed) for arm in names for seed in (0, 1)]
    found = [(r.benchmark, r.arm, r.stream["num_tasks"], r.seed) for r in runs]
    assert found == expected
    assert {run.study for run in runs} == {"small"}
    assert {run.hyper["step_size"] for run in runs} == {0.02}
    assert {run.metrics[0]["name"] for run in runs} == {"dead_units"}


def test_a_benchmark_brings_the_metric_that_it_is_ranked_by(tmp_path):
    places = [
        write_benchmark(tmp_path, "a", 3, 1, score="dead_units"),
        write_benchmark(tmp_path, "b", 4, 1),
    ]
    rows = study.runs_table(study.expand(small(), benchmarks=places))
    found = [(r["benchmark"], r["score"], r["num_tasks"]) for r in rows]
    assert found == [("a", "dead_units", 3), ("b", "", 4)]
    with pytest.raises(ConfigError, match="--benchmarks or --config.benchmark"):
        study.expand(small(), benchmarks=places, overrides={"benchmark": "c"})


def test_two_benchmarks_of_one_name_are_refused_unless_they_are_one(tmp_path):
    (tmp_path / "other").mkdir()
    one = write_benchmark(tmp_path, "a", 3, 1)
    longer = write_benchmark(tmp_path / "other", "a", 4, 1)
    with pytest.raises(ConfigError, match="Two benchmarks are called 'a' and differ"):
        study.expand(small(), methods_sweep, benchmarks=[one, longer])
    same = write_benchmark(tmp_path / "other", "a", 3, 1)
    assert len(study.expand(small(), methods_sweep, benchmarks=[one, same])) == 3


def test_benchmarks_drop_the_arms_own_streams(tmp_path):
    place = write_benchmark(tmp_path, "a", 3, 1)
    runs = study.expand(small(), rates_sweep, benchmarks=[place])
    assert arms(runs) == ["backprop 10", "l2 10"]


def test_unknown_keys_in_the_file_and_in_an_arm():
    with pytest.raises(UnknownNameError, match=r"config\.method\.stepsize.*step_size"):
        study.expand(small(method={"name": "backprop", "stepsize": 0.1}))
    with pytest.raises(UnknownNameError, match="Did you mean 'method'"):
        study.expand(small(), lambda add, config: add("a", methd={}))
    with pytest.raises(ConfigError, match="has no 'name'|name = None"):
        study.expand(small(stream={"num_tasks": 2}))


def test_a_sweep_must_add_arms_with_labels_of_their_own():
    with pytest.raises(ConfigError, match="added no arm"):
        study.expand(small(), lambda add, config: None)

    def sweep(add, config):
        del config
        add("same", method={"step_size": 0.1})
        add("same", method={"step_size": 0.2})

    with pytest.raises(ConfigError, match="different settings: 'same'"):
        study.expand(small(), sweep)


@pytest.mark.parametrize("label", ["", " ", None, 5])
def test_an_arm_needs_a_name(label):
    with pytest.raises(ConfigError, match="an arm needs a name"):
        study.expand(small(), lambda add, config: add(label))


def test_an_arm_may_belong_to_a_benchmark_of_its_own():
    def sweep(add, config):
        del config
        add("same", stream={"num_tasks": 2})
        add("same", benchmark="longer", stream={"num_tasks": 3})

    runs = study.expand(small(), sweep, overrides={"seeds": 1})
    assert [(run.benchmark, run.stream["num_tasks"]) for run in runs] == [
        (small().benchmark, 2),
        ("longer", 3),
    ]
    with pytest.raises(ConfigError, match="benchmark = 3 is no name"):
        study.expand(small(), lambda add, config: add("same", benchmark=3))


def test_a_method_that_needs_more_than_the_stream_offers():
    lacking = small(method={"name": "full_reset"})
    with pytest.raises(ConfigError, match="needs boundaries.*permuted.*oracle=True"):
        study.expand(lacking)
    assert all(run.oracle for run in study.expand(lacking, overrides={"oracle": True}))
    offered = {"stream.offers": ("boundaries",), "oracle": True}
    assert not any(run.oracle for run in study.expand(lacking, overrides=offered))

    def sweep(add, config):
        del config
        add("plain")
        add("reset", method={"name": "full_reset"}, oracle=True)

    marked = {run.arm: run.oracle for run in study.expand(small(), sweep)}
    assert marked == {"plain": False, "reset": True}


def test_equal_runs_are_merged_with_a_warning(caplog):
    def sweep(add, config):
        del config
        add("one")
        add("two", method={"step_size": 0.02})

    with caplog.at_level(logging.WARNING):
        runs = study.expand(small(), sweep)
    assert arms(runs) == ["one"]
    assert "'two', seed 0, is also small 'one'" in caplog.text
