"""Lanes in one program: strategies, devices, padding, chunks, resuming, NaN lanes."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import execute, registry, runner
from cl_bench.execute import Lanes
from cl_bench.methods import continual_backprop
from cl_bench.testing import _hyper, tiny_network, tiny_stream

STREAM = tiny_stream(num_tasks=3, steps_per_task=8, steps_per_segment=4)
NET = tiny_network(STREAM.spec)
LANES = 3
RATES = np.array([0.02, 0.01, 0.03], np.float32)
HYPER = continual_backprop.Hyper(replacement_rate=0.1, maturity_threshold=2)


def lanes(step_size=RATES):
    """Lane i has seed i and its own step size; the other settings are alike."""
    values = _hyper.traced_values(HYPER)
    each = [{**values, "step_size": rate} for rate in step_size]
    seeds = np.arange(len(step_size), dtype=np.uint32)
    return Lanes(seeds, _hyper.stacked(HYPER, each))


@functools.cache
def run():
    names = ("online_accuracy", "dead_units")
    made = [registry.load("metrics", n).make(NET, STREAM.spec) for n in names]
    return runner.make_run(STREAM, NET, continual_backprop.make, made, frozenset())


@functools.cache
def program(strategy, devices):
    return execute.compile_group(run(), STREAM.load(), lanes(), strategy, devices)


def with_lanes(made, others):
    """The same compiled program on other seeds and settings."""
    padded = execute._pad(others, len(made.lanes.seeds) - others.number)
    sharding = made.lanes.seeds.sharding
    return made._replace(lanes=jax.device_put(padded, sharding))


@functools.cache
def whole(strategy, devices):
    return finish(program(strategy, devices))


def finish(made, chunk_seconds=1e9, start=None):
    """All rows [L, segments] and the last carry, both on the host."""
    chunks: list[Any] = []
    carry: Any = None
    for chunk in execute.run_group(
        run(), made, chunk_seconds=chunk_seconds, start=start
    ):
        carry = jax.tree.map(np.asarray, chunk.carry)
        chunks.append(chunk._replace(carry=None))
    rows = {
        name: np.concatenate([c.rows[name] for c in chunks], axis=1)
        for name in chunks[0].rows
    }
    return rows, carry, [c.count for c in chunks]


def params(carry, lane):
    return jax.tree.map(lambda leaf: leaf[lane], carry.learner.net.params)


def test_the_tests_have_two_devices():
    assert jax.local_device_count() == 2


@pytest.mark.parametrize("strategy", execute.STRATEGIES)
def test_devices_hold_whole_lanes_and_padding_is_cut_off(strategy):
    made = program(strategy, 2)
    assert (made.width, made.devices, len(made.lanes.seeds)) == (LANES, 2, 4)
    rows, carry, _ = whole(strategy, 2)
    assert all(row.shape == (LANES, 6) for row in rows.values())
    assert carry.learner.net.params["head"]["bias"].shape == (4, 4)
    chex.assert_trees_all_equal(params(carry, 2), params(carry, 3))  # the padding
    shards = made.lanes.seeds.addressable_shards
    assert [np.asarray(s.data).tolist() for s in shards] == [[0, 1], [2, 2]]


def test_every_strategy_and_number_of_devices_computes_the_same():
    rows, carry, _ = whole("map", 1)
    assert np.nanmax(rows["online_accuracy"]) <= 1 and not rows["diverged"].any()
    for other in (("map", 2), ("vmap", 1), ("vmap", 2)):
        found_rows, found, _ = whole(*other)
        for lane in range(LANES):
            chex.assert_trees_all_close(
                params(carry, lane), params(found, lane), atol=1e-5
            )
        chex.assert_trees_all_close(rows, found_rows, atol=1e-5)


def test_lanes_differ_by_seed_and_by_setting():
    _, carry, _ = whole("map", 1)
    same_seed = Lanes(np.zeros(LANES, np.uint32), lanes().hyper)
    _, other, _ = finish(with_lanes(program("map", 1), same_seed))
    for a, b in ((params(carry, 0), params(carry, 1)),
                 (params(other, 0), params(other, 1))):  # fmt: skip
        assert np.any(a["h1"]["kernel"] != b["h1"]["kernel"])
    chex.assert_trees_all_equal(params(carry, 0), params(other, 0))


@pytest.mark.parametrize("strategy", execute.STRATEGIES)
def test_the_length_of_chunks_changes_nothing(strategy):
    rows, carry, counts = whole(strategy, 2)
    short_rows, short, ones = finish(program(strategy, 2), chunk_seconds=0)
    assert counts == [1, 5] and ones == [1] * 6
    chex.assert_trees_all_equal(rows, short_rows)
    chex.assert_trees_all_equal(carry, short)


@pytest.mark.parametrize("strategy", execute.STRATEGIES)
def test_a_resumed_run_is_the_uninterrupted_one(strategy):
    made = program(strategy, 2)
    steps = execute.run_group(run(), made, chunk_seconds=0)
    for _ in range(4):
        chunk = next(steps)
    saved = jax.tree.map(np.asarray, chunk.carry)
    shapes = execute.carry_shape(made)
    chex.assert_trees_all_equal_shapes_and_dtypes(saved, shapes)
    restored = jax.tree.map(
        lambda leaf, s: jax.device_put(leaf, s.sharding), saved, shapes
    )
    rows, carry, _ = finish(made, start=(4, restored))
    expected_rows, expected, _ = whole(strategy, 2)
    chex.assert_trees_all_equal(carry, expected)
    last = {name: row[:, 4:] for name, row in expected_rows.items()}
    chex.assert_trees_all_equal(rows, last)


@pytest.mark.parametrize("strategy", execute.STRATEGIES)
def test_a_lane_of_nans_stays_alone(strategy):
    rates = RATES.copy()
    rates[1] = np.nan
    rows, carry, _ = finish(with_lanes(program(strategy, 2), lanes(rates)))
    expected_rows, expected, _ = whole(strategy, 2)
    for lane in (0, 2):
        chex.assert_trees_all_equal(params(carry, lane), params(expected, lane))
        for name, row in rows.items():
            np.testing.assert_array_equal(row[lane], expected_rows[name][lane])
    assert rows["diverged"][1].all()
    assert np.isnan(carry.learner.net.params["head"]["bias"][1]).all()


def test_a_batch_of_fewer_lanes_runs_the_same_program():
    few = lanes(RATES[:1])
    made = execute.compile_group(run(), STREAM.load(), few, "map", 2, width=LANES)
    assert (made.width, len(made.lanes.seeds)) == (1, 4)
    rows, carry, _ = finish(made)
    expected_rows, expected, _ = whole("map", 2)
    assert rows["diverged"].shape == (1, 6)
    chex.assert_trees_all_equal(params(carry, 0), params(expected, 0))
    np.testing.assert_array_equal(
        rows["online_accuracy"][0], expected_rows["online_accuracy"][0]
    )


def test_the_carry_is_donated_and_the_numbers_are_known():
    made = program("vmap", 1)
    carry = made.start(made.data, *made.lanes)
    made.chunk(made.data, *made.lanes, carry, np.int32(0), np.int32(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(carry.learner.net))
    assert made.memory_bytes and made.memory_bytes > 0 and made.compile_seconds > 0


def test_a_rehearsal_names_the_faster_strategy(monkeypatch):
    """The clock is fake: vmap is the one that takes long."""
    times = iter([0, 1, 2, 4] + [10, 30, 40, 70])
    made = {strategy: program(strategy, 1) for strategy in execute.STRATEGIES}
    monkeypatch.setattr(
        execute, "compile_group", lambda run, data, lanes, strategy, d: made[strategy]
    )
    monkeypatch.setattr(execute.time, "perf_counter", lambda: next(times))
    runs = {"map": run(), "vmap": run()}
    data = jax.tree.map(jnp.asarray, STREAM.load())
    assert execute.fastest(runs, data, lanes(), 1) == "map"


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="none of auto, vmap, map"):
        execute.compile_group(run(), STREAM.load(), lanes(), "pmap")
