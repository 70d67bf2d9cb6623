"""The configuration: its keys, its file, the command line, and what each refuses."""

from typing import Any, Literal

import pytest
from absl import flags

from cl_bench import command_line, config, fields
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


@pytest.mark.parametrize("seeds", [0, -1, (), (1, 1), (-3,), "two", 1.5, True])
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


def test_overrides_are_split_off_the_command_line():
    rest, overrides = command_line.split_overrides(
        [
            "main",
            "--config=x.py",
            "--config.method.step_size=1e-3",
            "--config.network.widths=(8, 8)",
            "-config.seeds",
            "2",
            "--config.oracle",
            "--workdir=here",
            "--noconfig.execution.compilation_cache",
            "--config.stream.dataset=mnist",
        ]
    )
    assert rest == ["main", "--config=x.py", "--workdir=here"]
    assert overrides == {
        "method.step_size": 1e-3,
        "network.widths": (8, 8),
        "seeds": 2,
        "oracle": True,
        "execution.compilation_cache": False,
        "stream.dataset": "mnist",
    }


def test_the_last_of_two_overrides_counts():
    given = ["main", "--config.seeds=2", "--config.seeds=3"]
    assert command_line.split_overrides(given)[1] == {"seeds": 3}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.methd.name=l2", "Did you mean 'method'"),
        ("--config.method=l2", "config.method: set one key"),
        ("--config.seeds.first=1", "no keys below"),
        ("--config.method.a.b=1", "no keys below"),
    ],
)
def test_an_override_of_nothing_is_refused(flag, message):
    with pytest.raises(ValueError, match=message):
        command_line.split_overrides(["main", flag])


def test_flags():
    values = flags.FlagValues()
    command_line.define_flags(values)
    values(["main", "--config=x.py:smoke", "--methods=l2,backprop", "--benchmarks=a"])
    assert values["config"].value == "x.py:smoke"
    assert values["methods"].value == ["l2", "backprop"]
    assert values["benchmarks"].value == ["a"]
    missing = flags.FlagValues()
    command_line.define_flags(missing)
    with pytest.raises(flags.IllegalFlagValueError, match="config"):
        missing(["main"])


def sample_make(
    *,
    num_tasks: int = 3,
    rate: float = 0.5,
    widths: tuple[int, ...] = (4,),
    kind: Literal["fast", "slow"] = "fast",
    steps_per_task: int | tuple[int, ...] | None = None,
    reset: bool = False,
    folder: str | None = None,
    examples_per_eval: int = 0,
    free=None,
    step_size: float = 0.1,
    replacement_rate: float = 0.0,
    strength: float | None = None,
    noise_std: float = 0.0,
    weight_decay: float = 0.0,
    damping: float = 0.0,
    data_size: float = 1.0,
    threshold: float = 0.1,
    held_out_batch: int = 100,
):
    """Stands for a component's make; only its signature is read."""


@pytest.mark.parametrize(
    ("key", "value", "fitted"),
    [
        ("num_tasks", 2.0, 2),
        ("rate", 1, 1.0),
        ("widths", [2, 3], (2, 3)),
        ("widths", (), ()),
        ("kind", "slow", "slow"),
        ("steps_per_task", [5, 6], (5, 6)),
        ("steps_per_task", None, None),
        ("folder", None, None),
        ("examples_per_eval", 0, 0),
        ("free", [1, "a"], (1, "a")),
        ("step_size", 0, 0.0),
        ("strength", None, None),
        ("threshold", -1, -1.0),
        ("threshold", float("inf"), float("inf")),
    ],
)
def test_a_value_takes_its_fields_type(key, value, fitted):
    found = fields.resolve(
        "config", "it", fields.of_function(sample_make), {key: value}
    )
    assert found[key] == fitted
    assert type(found[key]) is type(fitted)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_tasks", -4, r"config\.num_tasks = -4: expected at least 1"),
        ("num_tasks", 2.5, r"= 2\.5: expected a whole number \(default 3\)"),
        ("num_tasks", True, "expected a whole number"),
        ("rate", "abc", r"config\.rate = 'abc': expected a number"),
        ("rate", float("nan"), "expected a number"),
        ("step_size", -1.0, r"config\.step_size = -1\.0: expected .* 0 or more"),
        ("step_size", float("inf"), "config.step_size = inf: expected a finite"),
        ("replacement_rate", -2, "config.replacement_rate = -2: .* 0 or more"),
        ("strength", -0.1, "config.strength = -0.1: .* 0 or more"),
        ("noise_std", -0.1, "config.noise_std = -0.1: .* 0 or more"),
        ("weight_decay", -0.1, "config.weight_decay = -0.1: .* 0 or more"),
        ("damping", -0.1, "config.damping = -0.1: .* 0 or more"),
        ("data_size", 0.0, "config.data_size = 0.0: .* above 0"),
        ("held_out_batch", 0, "config.held_out_batch = 0: expected at least 1"),
        ("widths", 5, "expected a tuple of: a whole number"),
        ("widths", ("a",), "expected a tuple of: a whole number"),
        ("widths", (0,), "expected at least 1"),
        ("steps_per_task", (5, 0), "expected at least 1"),
        ("kind", "sloww", "one of 'fast', 'slow'.*Did you mean 'slow'"),
        ("reset", 1, "expected True or False"),
        ("folder", 3, "expected a string or None"),
    ],
)
def test_a_value_that_does_not_fit_is_explained(key, value, message):
    with pytest.raises(ConfigError, match=message):
        fields.resolve("config", "it", fields.of_function(sample_make), {key: value})


def test_a_required_setting_is_asked_for():
    def make(*, wanted: int):
        del wanted

    with pytest.raises(ConfigError, match=r"config\.wanted: it needs a value"):
        fields.resolve("config", "it", fields.of_function(make), {})
