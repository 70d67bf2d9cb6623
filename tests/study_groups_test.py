"""Runs -> groups: identity, batches of settings, what is built and what is told."""

import json
import subprocess
import sys
import types

import chex
import jax
import numpy as np
import pytest
from flax import struct

from cl_bench import study
from cl_bench.fields import ConfigError
from cl_bench.methods import backprop
from tests.study_setting import methods_sweep, small


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
