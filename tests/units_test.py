"""Per-unit views: magnitudes, masks, writing into units, capacity."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cl_bench import units
from cl_bench.types import Learner, NetState, Unit

rng = np.random.default_rng(0)


def layer(*shape):
    return {
        "kernel": jnp.asarray(rng.normal(size=shape).astype(np.float32)),
        "bias": jnp.asarray(rng.normal(size=shape[-1]).astype(np.float32)),
    }


# A 3x3 convolution of 4 channels, flattened from 2 positions into two readers.
CONV = Unit("conv", 4, ("conv",), ("one", "two"), repeat=2)
DENSE = Unit("one", 5, ("one",), ("head",))
PARAMS = {
    "conv": layer(3, 3, 2, 4), "one": layer(8, 5), "two": layer(8, 3),
    "head": layer(5, 2),
}  # fmt: skip
MASKS = {
    "conv": jnp.array([False, True, False, False]),
    "one": jnp.array([True, False, False, False, True]),
}
ROWS = [1, 5]  # of channel 1: position 0, then position 1


def test_magnitudes_are_means_without_biases():
    kernel = np.abs(PARAMS["conv"]["kernel"])
    found = units.incoming_magnitude(PARAMS, CONV)
    chex.assert_trees_all_close(found, kernel.mean(axis=(0, 1, 2)), rtol=1e-6)
    found = units.outgoing_magnitude(PARAMS, CONV)
    both = np.abs(np.hstack([PARAMS["one"]["kernel"], PARAMS["two"]["kernel"]]))
    chex.assert_trees_all_close(found[:, 1], both[ROWS].mean(axis=1), rtol=1e-6)
    found = units.outgoing_magnitude(PARAMS, DENSE)
    expected = np.abs(PARAMS["head"]["kernel"]).mean(axis=1)
    chex.assert_trees_all_close(found, expected[None], rtol=1e-6)


def test_mean_over_batch_and_positions():
    h = rng.normal(size=(6, 3, 3, 4)).astype(np.float32)
    found = units.mean_over_batch(jnp.asarray(h))
    chex.assert_trees_all_close(found, h.reshape(-1, 4).mean(0), atol=1e-6)
    flat = h[:, :2, 0].reshape(6, 8)  # two positions: what a dense layer is given
    found = units.mean_by_row(jnp.asarray(h[:, :2, 0]), CONV)
    chex.assert_trees_all_close(found[:, 1], flat.mean(0)[ROWS], atol=1e-6)


def test_join_split_and_count():
    table = (CONV, DENSE)
    joined = units.join(table, MASKS)
    chex.assert_shape(joined, (9,))
    chex.assert_trees_all_equal(units.split(table, joined), MASKS)
    np.testing.assert_array_equal(units.count(table, joined), [1.0, 2.0])


def test_writing_into_units_touches_them_only():
    fresh = {"conv": jnp.full((3, 3, 2, 1), 7.0)}
    found = units.set_incoming(PARAMS, CONV, MASKS["conv"], fresh, 9.0)
    found = units.set_outgoing(found, CONV, MASKS["conv"], 0.0)
    expected = jax.tree.map(np.array, PARAMS)
    expected["conv"]["kernel"][..., 1] = 7.0
    expected["conv"]["bias"][1] = 9.0
    expected["one"]["kernel"][ROWS] = 0.0
    expected["two"]["kernel"][ROWS] = 0.0
    chex.assert_trees_all_equal(jax.tree.map(np.array, found), expected)


def test_param_mask_is_what_writing_touches():
    mask = units.param_mask(PARAMS, (CONV, DENSE), MASKS)
    expected = jax.tree.map(lambda p: np.zeros(p.shape, bool), PARAMS)
    expected["conv"]["kernel"][..., 1] = True
    expected["conv"]["bias"][1] = True
    expected["one"]["kernel"][ROWS] = expected["two"]["kernel"][ROWS] = True
    expected["one"]["kernel"][:, [0, 4]] = True
    expected["one"]["bias"][[0, 4]] = True
    expected["head"]["kernel"][[0, 4]] = True
    chex.assert_trees_all_equal(jax.tree.map(np.array, mask), expected)


def test_transfer_mean_moves_the_mean_output_into_the_readers_biases():
    means = {"conv": jnp.array([5.0, 2.0, 5.0, 5.0]), "one": jnp.full(5, 3.0)}
    found = units.transfer_mean(PARAMS, (CONV, DENSE), MASKS, means)
    expected = jax.tree.map(np.array, PARAMS)
    for name in ("one", "two"):
        expected[name]["bias"] += 2.0 * expected[name]["kernel"][ROWS].sum(0)
    expected["head"]["bias"] += 3.0 * expected["head"]["kernel"][[0, 4]].sum(0)
    chex.assert_trees_all_close(jax.tree.map(np.array, found), expected, rtol=1e-5)


def test_constrain_reaches_every_network_a_learner_holds():
    alive = {"conv": ~MASKS["conv"]}
    edges = {"head": jnp.array([[True, False]] * 5)}
    net = NetState(PARAMS, {}, alive, edges)
    learner = Learner(net, {"m": PARAMS}, {"copy": {"slow": net}, "mean": PARAMS})
    found = units.constrain(learner, (CONV, DENSE))
    for state in (found.net, found.extra["copy"]["slow"]):
        assert (state.params["conv"]["kernel"][..., 1] == 0).all()
        assert state.params["conv"]["bias"][1] == 0
        assert (state.params["two"]["kernel"][jnp.array(ROWS)] == 0).all()
        assert (state.params["head"]["kernel"][:, 1] == 0).all()
        assert (state.params["head"]["kernel"][:, 0] != 0).all()
        assert (state.params["one"]["kernel"] != 0).sum() == 6 * 5
    chex.assert_trees_all_equal(found.opt, learner.opt)
    chex.assert_trees_all_equal(found.extra["mean"], learner.extra["mean"])


def test_constrain_costs_nothing_without_spare_capacity_or_edges():
    learner = Learner(NetState(PARAMS, {}, {}, None), (), {})
    same = units.constrain(learner, (CONV, DENSE))
    assert same.net.params["conv"]["kernel"] is PARAMS["conv"]["kernel"]
