"""Config and sweep -> runs -> groups: precedence, products, refusals and identity."""

import json
import logging
import subprocess
import sys
import types
from typing import Any

import chex
import jax
import numpy as np
import pytest
from flax import struct

from cl_bench import config, study
from cl_bench.fields import ConfigError
from cl_bench.methods import backprop
from cl_bench.registry import UnknownNameError


def small(**changes):
    sections: dict[str, Any] = {
        "name": "small",
        "stream": {"name": "permuted", "num_tasks": 2, "steps_per_task": 10},
        "network": {"name": "mlp", "widths": (5,)},
        "method": {"name": "backprop", "step_size": 0.02},
        "seeds": 2,
    }
    return config.study(**(sections | changes))


def methods_sweep(add, config):
    del config
    add("backprop")
    add("decayed", method={"name": "l2", "strength": 0.5})
    add("replacing", method={"name": "continual_backprop", "replacement_rate": 0.1})


def rates_sweep(add, config):
    for steps in (10, 20):
        change = {"steps_per_task": steps * config.stream.num_tasks}
        add(f"backprop {steps}", stream=change)
        add(f"l2 {steps}", stream=change, method={"name": "l2"})


def arms(runs):
    return list(dict.fromkeys(run.arm for run in runs))


def hypers(runs, key):
    return [run.hyper.get(key) for run in runs if run.seed == 0]


@pytest.fixture
def odd_method(monkeypatch):
    """A user's method whose settings are of every kind."""

    @struct.dataclass
    class Hyper:
        rate: float = 1.0
        count: int = 4
        betas: tuple[float, float] = (0.9, 0.99)
        on: bool = True
        limit: float | None = None
        period: int = struct.field(pytree_node=False, default=10)

    def check(hyper):
        if hyper.rate < 0:
            raise ValueError(f"rate={hyper.rate} is negative")

    module = types.ModuleType("odd_method")
    parts = {
        "__spec__": types.SimpleNamespace(name="odd_method"),
        "REFERENCE": "none",
        "NEEDS": frozenset({"task_id"}),
        "Hyper": Hyper,
        "check": check,
        "make": lambda net, spec, hyper: backprop.make(net, spec, backprop.Hyper()),
    }
    vars(module).update(parts)
    monkeypatch.setitem(sys.modules, "odd_method", module)
    return module


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


def write_benchmark(folder, name, tasks, seeds):
    (folder / f"{name}.py").write_text(
        "from cl_bench import config\n"
        "def get_config(arg=''):\n"
        f"    return config.study(name='{name}', seeds={seeds},\n"
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


def test_benchmarks_drop_the_arms_own_streams(tmp_path):
    place = write_benchmark(tmp_path, "a", 3, 1)
    runs = study.expand(small(), rates_sweep, benchmarks=[place])
    assert arms(runs) == ["backprop 10", "l2 10"]


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
        ({"network.widths": 5}, r"config\.network\.widths = 5"),
        ({"method.optimizer": "sgdd"}, r"config\.method \(backprop\).*sgdd"),
        ({"network.activation": "rellu"}, r"config\.network \(mlp\).*rellu"),
        ({"metrics": "dead_units,dead_units"}, "stands there twice"),
    ],
)
def test_bad_values_are_refused_before_anything_runs(overrides, message):
    with pytest.raises(ConfigError, match=message):
        study.expand(small(), overrides=overrides)


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


def test_a_run_id_names_the_result_and_nothing_else():
    run = study.expand(small())[0]

    def run_id(**changes):
        return study.expand(small(**changes))[0].run_id

    moved = {"name": "permuted", "num_tasks": 2, "steps_per_task": 10, "data_dir": "d"}
    assert run_id(name="renamed") == run.run_id
    assert run_id(execution={"lanes": "map"}) == run.run_id
    assert run_id(stream=moved) == run.run_id
    assert run_id(seeds=(1,)) != run.run_id
    assert run_id(method={"name": "backprop", "step_size": 0.03}) != run.run_id
    assert run_id(network={"name": "mlp", "widths": (6,)}) != run.run_id
    assert run_id(metrics=("dead_units",)) != run.run_id


def test_ids_are_the_same_in_another_process():
    code = (
        "from cl_bench import canonical; "
        "print(canonical.digest({'b': (1, 2.5), 'a': [None, True]}))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    value = {"a": (None, True), "b": [1, 2.5]}
    assert out.stdout.strip() == study.digest(value)
    assert study.canonical_json(value) == '{"a":[null,true],"b":[1,2.5]}'


def test_traced_settings_share_a_group_and_static_ones_do_not():
    def sweep(add, config):
        del config
        add("sgd", method={"step_size": [0.1, 0.2]})
        add("l2", method={"name": "l2"})
        add("adam", method={"optimizer": "adam"})
        add("sgd again", method={"step_size": 0.3})

    groups = study.group(study.expand(small(), sweep))
    lanes = [[(run.arm, run.seed) for run in g.runs] for g in groups]
    assert [len(ls) for ls in lanes] == [6, 2, 2]
    first, second = "sgd step_size=0.1", "sgd step_size=0.2"
    assert lanes[0][:3] == [(first, 0), (first, 1), (second, 0)]
    assert groups[0].key.startswith("backprop-permuted-")
    assert len({g.key for g in groups}) == 3
    batch = study.hyper_batch(groups[0])
    expected = np.repeat(np.array([0.1, 0.2, 0.3], np.float32), 2)
    chex.assert_trees_all_equal(batch.step_size, expected)
    assert batch.step_size.dtype == np.float32
    assert batch.optimizer == "sgd"
    chex.assert_trees_all_equal(study.seeds(groups[0]), np.array([0, 1] * 3, np.uint32))


def test_hyper_batch_of_every_kind_of_setting(odd_method):
    base = small(method={"name": "odd_method"}, oracle=True, seeds=1)
    swept = {"method.count": [2, 3], "method.limit": [None, 0.5]}
    groups = study.group(study.expand(base, overrides=swept))
    assert [len(g.runs) for g in groups] == [2, 2]  # None is no number: its own program
    batch = study.hyper_batch(groups[0])
    assert isinstance(batch, odd_method.Hyper)
    chex.assert_trees_all_equal(batch.count, np.array([2, 3], np.int32))
    chex.assert_trees_all_equal(batch.on, np.array([True, True]))
    chex.assert_shape(batch.betas, (2, 2))
    assert batch.limit is None and batch.period == 10
    chex.assert_tree_shape_prefix(batch, (2,))
    assert study.hyper_batch(groups[1]).limit.dtype == np.float32
    lane = jax.vmap(lambda hyper: hyper.rate * hyper.count)(batch)
    chex.assert_trees_all_close(lane, np.array([2, 3], np.float32))


def test_a_methods_own_check_is_asked(odd_method):
    del odd_method
    base = small(method={"name": "odd_method", "rate": -1.0}, oracle=True)
    with pytest.raises(ConfigError, match=r"config\.method \(odd_method\).*negative"):
        study.expand(base)


def test_build_makes_what_the_runs_describe():
    groups = study.group(study.expand(small(metrics=("dead_units",))))
    parts = study.build(groups[0])
    assert parts.stream.spec.num_tasks == 2
    assert parts.network.units[0].size == 5
    assert parts.method is backprop
    assert len(parts.metrics) == 1


def test_runs_table_is_json_and_points_at_the_groups():
    runs = study.expand(small(), methods_sweep)
    rows = json.loads(json.dumps(study.runs_table(runs)))
    keys = {run.run_id: g.key for g in study.group(runs) for run in g.runs}
    assert {row["run_id"]: row["group"] for row in rows} == keys
    assert rows[0]["hyper"]["step_size"] == 0.02
    assert rows[0]["stream_config"]["num_tasks"] == 2


def test_dry_run_counts_runs_groups_and_steps():
    groups = study.group(study.expand(small(), methods_sweep))
    text = study.dry_run_text(groups, memory=lambda g: 1500 * len(g.runs))
    assert "6 runs (small) in 3 groups, 3 programs to compile, 120 lane-steps" in text
    assert "2 lanes, 2 tasks x 10 steps, about 3 kB" in text
    assert "small: decayed, 2 runs" in text
