"""Ranks, silent units and norms of weights at a task's start, by hand and by numpy."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.metrics import (
    _ranks,
    dead_units,
    dead_units_kumar,
    effective_rank,
    srank_kumar,
    stable_rank,
    weight_norms,
    weight_rank,
)
from cl_bench.networks import mlp
from tests import tiny
from tests.metrics_test import layers, read_start
from tests.reference import metrics as oracle
from tests.reference import plasticity_metrics as more

close = chex.assert_trees_all_close


def test_sranks_and_stable_rank_by_hand():
    h = np.zeros((5, 4), np.float32)  # singular values 30, 10, 0, 0
    h[0, 1], h[3, 2] = 30.0, -10.0
    assert read_start(stable_rank, {"h1": h})["stable_rank"] == pytest.approx(
        100 * (1000 / 900) / 4
    )
    # Cumulative shares .75, 1, 1, 1: one is below .99, none below .75.
    assert read_start(srank_kumar, {"h1": h})["srank_kumar"] == 1.0
    assert read_start(srank_kumar, {"h1": h}, delta=0.3)["srank_kumar"] == 0.0
    both = read_start(srank_kumar, {"h1": h, "h2": np.eye(5, 3, dtype=np.float32)})
    assert both["srank_kumar"] == pytest.approx((1 + 2) / 2)
    with pytest.raises(ValueError, match="delta=1"):
        read_start(srank_kumar, {"h1": h}, delta=1.0)


def test_ranks_as_the_oracle():
    acts = layers(np.random.default_rng(3))
    found = {**read_start(srank_kumar, acts), **read_start(stable_rank, acts)}
    sranks = {n: oracle.srank_kumar(h) for n, h in acts.items()}
    stable = {n: more.stable_rank(h) for n, h in acts.items()}
    expected = {f"srank_kumar/{n}": float(r) for n, r in sranks.items()}
    expected |= {
        f"stable_rank/{n}": 100 * r / acts[n].shape[1] for n, r in stable.items()
    }
    expected["srank_kumar"] = np.mean(list(sranks.values()))
    expected["stable_rank"] = 100 * sum(stable.values()) / 16
    close(found, expected, rtol=1e-4)
    # The definition of srank has one more; the scales differ.
    absolute = oracle.abs_approximate_rank(acts["h1"])
    assert sranks["h1"] == absolute - 1


def test_kumar_counts_each_position_of_a_map():
    maps = np.zeros((6, 2, 1, 3), np.float32)  # 2 positions, 3 units
    maps[0, 0, 0, 0] = maps[1, 1, 0, 0] = 1.0  # unit 0 is alive at both positions
    maps[4, 1, 0, 1] = -2.0  # unit 1 at the second one only
    found = read_start(dead_units_kumar, {"h1": maps})
    assert found["dead_units_kumar"] == pytest.approx(3 / 6)
    assert more.dead_neurons_kumar(maps) == 3
    assert read_start(dead_units, {"h1": maps})["dead_units"] == pytest.approx(1 / 3)
    alive = {"h1": jnp.array([True, True, False])}
    found = read_start(dead_units_kumar, {"h1": maps}, alive)
    assert found["dead_units_kumar/h1"] == pytest.approx(1 / 4)
    # Kumar's rank takes positions as features: two vectors of length 6 here.
    assert read_start(srank_kumar, {"h1": maps})["srank_kumar"] == oracle.srank_kumar(
        maps.reshape(6, 6)
    )


def test_two_features_a_unit_are_two_columns():
    h = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    pair = np.stack([np.maximum(h, 0), np.maximum(-h, 0)], axis=1)  # [9, 2, 3]
    assert _ranks.features(pair).shape == (9, 6)
    assert _ranks.features(pair[:, None, None]).shape == (9, 6)
    assert _ranks.features(np.zeros((9, 4, 5, 3))).shape == (180, 3)
    rank = oracle.effective_rank(pair.reshape(9, 6))
    found = read_start(effective_rank, {"h1": pair})
    close(found["effective_rank"], 100 * rank / 6, rtol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_number(value):
    acts = {"h1": np.where(np.eye(6, 3) > 0, value, 0.0).astype(np.float32)}
    for module in (srank_kumar, stable_rank, dead_units_kumar):
        assert np.isnan(list(read_start(module, acts).values())).all(), module
    zeros = {"h1": np.zeros((6, 3), np.float32)}
    assert read_start(srank_kumar, zeros)["srank_kumar"] == 0.0
    assert read_start(stable_rank, zeros)["stable_rank"] == 0.0


PARAMS = {
    "h1": {"kernel": jnp.array([[1.0, -2.0], [2.0, -4.0]]), "bias": jnp.full(2, 3.0)},
    "head": {"kernel": jnp.array([[2.0], [-4.0]]), "bias": jnp.array([5.0])},
}


def test_weight_norms_and_rank_by_hand():
    net = mlp.make(tiny.SPEC, widths=(2,))
    found = read_start(weight_norms, {}, params=PARAMS, net=net)
    assert found["parameter_magnitude"] == pytest.approx((9 + 6 + 6 + 5) / 9)
    assert found["weight_l1"] == more.weight_l1(PARAMS) == 15.0
    assert found["weight_l2"] == pytest.approx(np.sqrt(25 + 20))
    assert more.weight_l2(PARAMS) == pytest.approx(np.sqrt(45))
    found = read_start(weight_rank, {}, params=PARAMS, net=net)  # ranks 1 of 2, 1 of 1
    assert found["weight_rank/h1"] == 0.5
    assert found["weight_rank"] == pytest.approx(2 / 3)
    assert more.weight_rank(PARAMS) == pytest.approx(2 / 3)


def test_what_is_not_in_use_counts_in_no_norm():
    net = mlp.make(tiny.SPEC, widths=(2,))
    alive = {"h1": jnp.array([True, False])}
    found = read_start(weight_norms, {}, alive, PARAMS, net=net)
    assert found["parameter_magnitude"] == pytest.approx((3 + 3 + 2 + 5) / 5)
    assert found["weight_l1"] == 5.0
    found = read_start(weight_rank, {}, alive, PARAMS, net=net)
    assert found["weight_rank"] == found["weight_rank/h1"] == 1.0
    edges = {"h1": jnp.array([[True, False], [False, True]])}
    found = read_start(weight_rank, {}, {}, PARAMS, edges, net)
    assert found["weight_rank/h1"] == 1.0
    found = read_start(weight_norms, {}, {}, PARAMS, edges, net)
    assert found["weight_l1"] == 1 + 4 + 6


def test_weight_rank_of_filters():
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    kernel[:, :, 0, 1] = 0.0  # rank 0
    kernel[:, :, 1, 2] = np.outer([1.0, 2.0, 3.0], [1.0, 0.0, -1.0])  # rank 1
    rank, largest = weight_rank.rank_and_largest(kernel, jnp.ones(kernel.shape, bool))
    assert (float(rank), int(largest)) == (pytest.approx((6 * 3 + 0 + 1) / 8), 3)
    assert more.weight_rank({"c": {"kernel": kernel}}) == pytest.approx(19 / 24)
    assert np.isnan(weight_rank.matrix_rank(jnp.full((3, 2), jnp.nan)))
