"""The configuration: its keys, its file, and what each refuses."""

from typing import Any

import pytest

from cl_bench import config
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError

FILE = '''
"""A small experiment."""

from cl_bench import config


def get_config(arg=""):
    mode = config.mode(arg, ("smoke", "full"), default="full")
    return config.study(
        name="sample",
        stream={"name": "permuted", "num_tasks": 2 if mode == "smoke" else 800},
        network={"name": "mlp", "widths": (5,)},
        method={"name": "backprop"},
    )


def sweep(add, config):
    add("backprop")
'''


def small(**changes):
    sections: dict[str, Any] = {
        "name": "small",
        "stream": {"name": "permuted", "num_tasks": 2},
        "network": {"name": "mlp", "widths": (5,)},
        "method": {"name": "backprop", "step_size": 0.01},
    }
    return config.study(**(sections | changes))


def test_settings_fill_in_only_what_no_component_owns():
    found = config.settings(small())
    assert found["stream"] == {"name": "permuted", "num_tasks": 2}
    assert found["benchmark"] == found["study"] == "small"
    assert found["seeds"] == (0, 1, 2)
    assert found["execution"]["lanes"] == "auto"
    assert found["execution"]["matmul_precision"] == "highest"


def test_seeds_are_a_count_or_the_seeds_themselves():
    assert config.settings(small(seeds=2))["seeds"] == (0, 1)
    assert config.settings(small(seeds=(7, 3)))["seeds"] == (7, 3)


def test_another_data_set_is_another_benchmark():
    given = small(benchmark="mine")
    assert config.settings(given, {"stream.num_tasks": 3})["benchmark"] == "mine"
    other = {"stream.dataset": "mnist"}
    assert config.settings(given, other)["benchmark"] == "mine-mnist"
    assert config.settings(given, {**other, "benchmark": "b"})["benchmark"] == "b"
    same = small(stream={"name": "permuted", "dataset": "mnist"})
    assert config.settings(same, other)["benchmark"] == "small"


def test_a_score_is_one_of_the_metrics():
    both = ("online_accuracy", {"name": "test_accuracy", "minibatches": 3})
    given = small(metrics=both, score="test_accuracy")
    assert config.settings(given)["score"] == "test_accuracy"
    assert config.settings(small())["score"] == ""
    with pytest.raises(UnknownNameError, match="mean 'test_accuracy'"):
        config.settings(small(metrics=both, score="test_acuracy"))
    with pytest.raises(UnknownNameError, match="'dead_units' is not measured"):
        config.settings(given, {"score": "dead_units"})
    # Other metrics on the command line leave the file's score behind.
    assert config.settings(given, {"metrics": "online_accuracy"})["score"] == ""


@pytest.mark.parametrize("seeds", [0, -1, (), (1, 1), (-3,), "two", 1.5, True, 10**8])
def test_bad_seeds_name_the_key_and_the_value(seeds):
    with pytest.raises(ConfigError, match=r"config\.seeds") as error:
        config.settings(small(seeds=seeds))
    assert repr(seeds) in str(error.value)


def test_a_mistyped_key_in_a_file_fails_where_it_stands():
    with pytest.raises(AttributeError, match="seeds"):
        small().sedes = 5


def test_sections_of_a_config_stay_open():
    made = small()
    made.method.momentum = 0.5
    assert config.settings(made)["method"]["momentum"] == 0.5


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        ({"lanes": "vmapp"}, r"lanes = 'vmapp'.*'auto', 'vmap', 'map'.*mean 'vmap'"),
        ({"devices": -1}, r"devices = -1"),
        ({"devices": 100_000}, r"devices = 100000: at most 1024"),
        ({"chunk_seconds": "long"}, r"chunk_seconds = 'long': expected a number"),
        ({"matmul_precision": "tf32"}, r"matmul_precision = 'tf32'"),
    ],
)
def test_bad_execution_settings_say_what_is_accepted(execution, message):
    with pytest.raises(ConfigError, match=message):
        config.settings(small(execution=execution))


def test_unknown_execution_setting_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'devices'"):
        config.settings(small(execution={"device": 2}))


def test_overrides_are_applied_and_the_config_left_alone():
    made = small()
    overrides = {"seeds": 1, "stream.num_tasks": 9, "execution.lanes": "map"}
    found = config.settings(made, overrides)
    assert found["seeds"] == (0,)
    assert found["stream"]["num_tasks"] == 9
    assert found["execution"]["lanes"] == "map"
    assert made.stream.num_tasks == 2


def test_metrics_may_be_given_in_one_string():
    found = config.settings(small(), {"metrics": "online_accuracy,dead_units"})
    assert found["metrics"] == ("online_accuracy", "dead_units")
    found = config.settings(small(), {"metrics": " dead_units ,"})
    assert found["metrics"] == ("dead_units",)
    with pytest.raises(ConfigError, match="expected a tuple of: anything"):
        config.settings(small(), {"metrics": 5})


def test_load_takes_a_file_a_bare_name_and_a_module(tmp_path, monkeypatch):
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "sample.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for spec in ("experiments/sample.py", "sample", str(folder / "sample.py")):
        loaded = config.load(spec)
        assert loaded.config.stream.num_tasks == 800
        assert loaded.sweep is not None
    assert config.load("sample:smoke").config.stream.num_tasks == 2
    monkeypatch.chdir(folder)
    (tmp_path / "my_study.py").write_text(FILE)
    assert config.load("my_study:smoke").config.study == "sample"


def test_load_names_the_nearest_experiment(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "sample.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=r"mean 'experiments/sample\.py'"):
        config.load("experiments/sampel.py")
    monkeypatch.chdir("/")  # bare names are also those of the clone
    with pytest.raises(UnknownNameError, match="mean 'kumar'"):
        config.load("kumer")


def test_an_unknown_mode_names_the_nearest(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text(FILE)
    with pytest.raises(UnknownNameError, match="mean 'smoke'"):
        config.load(f"{path}:smok")


def test_a_file_that_raises_shows_its_own_error(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def get_config(arg=''):\n    return {}['missing key']\n")
    with pytest.raises(KeyError, match="missing key") as error:
        config.load(str(path))
    assert error.traceback[-1].path == path


@pytest.mark.parametrize("body", ["x = 1", "def get_config(arg=''):\n    pass"])
def test_a_file_without_a_config_is_refused(tmp_path, body):
    path = tmp_path / "empty.py"
    path.write_text(body)
    with pytest.raises(ConfigError, match="get_config"):
        config.load(str(path))
