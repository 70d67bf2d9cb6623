"""Resetting whole units: exactly their own weights, statistics and moments change.

The rows and columns that a reset must touch are written out by hand for each network:
nothing here asks the network's own table.
"""

from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import optimizers
from cl_bench.methods import _surgery, last_layers_reset
from cl_bench.networks import cnn, mlp, resnet18
from cl_bench.types import Network
from tests import tiny

# Draws compiled with the reset may differ in the last bit from draws made alone.
close = partial(chex.assert_trees_all_close, rtol=1e-6)
IMAGES = tiny.SPEC._replace(input_shape=(6, 5, 2))
NEUTRAL = {"bias": 0, "scale": 1, "shift": 0, "prelu": 0.25, "adalin": 0}


class Case(NamedTuple):
    """Which units start anew, and where their weights are."""

    net: Network
    units: dict[str, list[int]]
    columns: dict[str, list[int]]  # of the modules that write the units
    rows: dict[str, list[int]]  # of the modules that read them
    shape: tuple[int, ...]  # of one input
    separate: bool = True  # no unit's output depends on another of its layer


def mlp_case(repeat=1, separate=True, **options):
    net = mlp.make(tiny.SPEC, widths=(5, 4), **options)
    rows = {"h2": [1, 3], "head": [2]}
    if repeat == 2:  # the first feature of all units, then the second
        rows = {"h2": [1, 3, 6, 8], "head": [2, 6]}
    columns = {"h1": [1, 3], "h2": [2]}
    return Case(net, columns, columns, rows, tiny.SPEC.input_shape, separate)


def cnn_case():
    """3 channels at 2 x 1 positions after the pool, flattened: position by position."""
    net = cnn.make(IMAGES, channels=(3,), kernels=(3,), dense=(4,))
    units = {"c1": [0, 2], "h1": [3]}
    rows = {"h1": [0, 2, 3, 5], "head": [3]}
    return Case(net, units, units, rows, IMAGES.input_shape)


def resnet_case():
    """Channel 1 of the first stream, two channels inside a block, one last channel."""
    units = {"s1": [1], "s2b1": [0, 3], "s4": [5]}
    columns = {
        "stem": [1], "s1b1c2": [1], "s1b2c2": [1], "s2b1c1": [0, 3],
        "s4skip": [5], "s4b1c2": [5], "s4b2c2": [5],
    }  # fmt: skip
    rows = {
        "s1b1c1": [1], "s1b2c1": [1], "s2skip": [1], "s2b1c1": [1], "s2b1c2": [0, 3],
        "s4b2c1": [5], "head": [5],
    }  # fmt: skip
    net = resnet18.make(IMAGES, width=2)
    return Case(net, units, columns, rows, IMAGES.input_shape)


CASES = {
    "mlp": mlp_case,
    "mlp, layer norm": lambda: mlp_case(norm="layer", separate=False),
    "mlp, batch norm": lambda: mlp_case(norm="batch"),
    "mlp, online norm": lambda: mlp_case(norm="online"),
    "mlp, crelu": lambda: mlp_case(repeat=2, activation="crelu"),
    "mlp, prelu": lambda: mlp_case(activation="prelu"),
    "cnn": cnn_case,
    "resnet18": resnet_case,
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return CASES[request.param]()


def moved(tree, seed=0):
    """Every leaf elsewhere than at its start, statistics positive."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: p + rng.uniform(0.5, 1.5, p.shape).astype(np.float32), tree
    )


def trained(net):
    """A network state no entry of which is neutral, or fresh."""
    state = net.init(tiny.KEY)
    return state._replace(params=moved(state.params), stats=moved(state.stats, 1))


def masks_of(case, units: dict[str, list[int]] | None = None):
    units = case.units if units is None else units
    return {
        u.name: jnp.isin(jnp.arange(u.size), jnp.array(units.get(u.name, []), int))
        for u in case.net.units
    }


def expected_params(case, params, source, restored=("kernel",)):
    """Numpy: rows first, then columns; what joins two reset units is fresh."""
    params = jax.tree.map(np.array, params)
    for name, rows in case.rows.items():
        params[name]["kernel"][..., rows, :] = 0.0
    for name, columns in case.columns.items():
        for leaf, value in params[name].items():
            old = source[name][leaf] if leaf in restored else None
            value[..., columns] = NEUTRAL[leaf] if old is None else old[..., columns]
    return params


def touched(case, params):
    """What belongs to the units: a tree of bools."""
    found = jax.tree.map(lambda p: np.zeros(p.shape, bool), params)
    for name, columns in case.columns.items():
        for leaf in found[name].values():
            leaf[..., columns] = True
    for name, rows in case.rows.items():
        found[name]["kernel"][..., rows, :] = True
    return found


def expected_stats(case, stats):
    stats = jax.tree.map(np.array, stats)
    for name, columns in case.columns.items():
        for tree in (stats, stats.get("backward", {})):
            for leaf, value in tree.get(name, {}).items():
                value[columns] = 1.0 if leaf == "var" else 0.0
    return stats


@pytest.mark.parametrize("source", ["fresh", "initial"])
def test_a_reset_touches_the_units_and_nothing_else(case, source):
    state, key = trained(case.net), jax.random.key(3)
    initial = None if source == "fresh" else case.net.init(tiny.KEY).params
    restored = ("kernel",) if source == "fresh" else ("kernel", "bias")
    found = _surgery.reset_units(key, case.net, state, masks_of(case), initial)
    drawn = (
        case.net.init(jax.random.fold_in(key, 0)).params if initial is None else initial
    )
    expected = expected_params(case, state.params, drawn, restored)
    close(found.params, expected)
    kept = jax.tree.map(np.logical_not, touched(case, state.params))
    chex.assert_trees_all_equal(
        jax.tree.map(lambda p, k: p[k], found.params, kept),
        jax.tree.map(lambda p, k: p[k], state.params, kept),
    )
    chex.assert_trees_all_equal(found.stats, expected_stats(case, state.stats))
    assert found.alive == state.alive and found.edges is state.edges


def test_moments_are_those_of_the_weights_that_changed(case):
    """Adam's moments, 1 before, are 0 for the rows and columns and 1 elsewhere."""
    params = trained(case.net).params
    mask = _surgery.moment_mask(case.net, params, masks_of(case))
    optim = optimizers.make(optimizers.OptimHyper(optimizer="adam"))
    ones = jax.tree.map(jnp.ones_like, optim.init(params))
    adam = optim.reset(ones, mask, "moments")[0]
    expected = jax.tree.map(lambda t: np.float32(~t), touched(case, params))
    chex.assert_trees_all_equal(adam.mu, expected)
    chex.assert_trees_all_equal(adam.nu, expected)
    assert adam.count == 1


def test_nothing_reads_a_unit_that_starts_anew(case):
    """Logits do not depend on what it reads, and the units' neighbours do not either."""
    if not case.separate:
        pytest.skip("layer normalisation: all units of a layer share mean and variance")
    found = _surgery.reset_units(
        jax.random.key(3), case.net, trained(case.net), masks_of(case)
    )
    params = jax.tree.map(np.array, found.params)
    for name, columns in case.columns.items():
        params[name]["kernel"][..., columns] += 1.0
    x = np.random.default_rng(0).normal(size=(4, *case.shape)).astype(np.float32)
    logits = [
        case.net.apply(found._replace(params=p), x, train=True, key=tiny.KEY)[0]
        for p in (found.params, params)
    ]
    chex.assert_trees_all_close(*logits, atol=1e-4)  # of up to 100
    readers = {n: {**p, "kernel": p["kernel"] + 1.0} for n, p in params.items()}
    read = case.net.apply(found._replace(params=readers), x, train=True, key=tiny.KEY)[
        0
    ]
    assert np.abs(read - logits[0]).max() > 0.1  # the check can see a weight


def test_no_unit_no_change(case):
    state = trained(case.net)
    found = _surgery.reset_units(tiny.KEY, case.net, state, masks_of(case, {}))
    chex.assert_trees_all_equal(found, state)


def test_each_lane_resets_its_own_units():
    case = mlp_case(norm="batch")
    state, keys = trained(case.net), jax.random.split(tiny.KEY, 2)
    both = masks_of(case), masks_of(case, {"h2": [0]})
    stacked = jax.tree.map(lambda *m: jnp.stack(m), *both)
    found = jax.vmap(lambda k, m: _surgery.reset_units(k, case.net, state, m))(
        keys, stacked
    )
    for i, masks in enumerate(both):
        alone = _surgery.reset_units(keys[i], case.net, state, masks)
        close(tiny.at(found, i), alone)


# ---- the last layers


def test_the_last_layers_start_anew_with_their_statistics():
    """Layers 2: 'h2' and 'head', in the step at the end of each period alone."""
    spec = tiny.SPEC
    net = mlp.make(spec, widths=(5, 4), norm="online")
    hyper = last_layers_reset.Hyper(
        layers=2, period=3, optimizer="adam", step_size=0.01
    )
    method = last_layers_reset.make(net, spec, hyper)
    first, learners, _ = tiny.run(method, tiny.batches(3))
    key = jax.random.fold_in(tiny.step_key(2), 2)
    fresh = net.init(jax.random.fold_in(key, 0))
    before, after = (tiny.at(learners, i) for i in (1, 2))
    for name in ("h2", "head"):
        close(after.net.params[name], fresh.params[name])
        gone = before.net.params[name]["kernel"] - fresh.params[name]["kernel"]
        assert np.abs(gone).max() > 0.1
    chex.assert_trees_all_equal(after.net.stats["h2"], fresh.stats["h2"])
    backward = after.net.stats["backward"]
    chex.assert_trees_all_equal(backward["h2"], fresh.stats["backward"]["h2"])
    assert np.abs(backward["h1"]["error_1"]).max() > 0
    adam = after.opt[0]
    assert all(
        not np.any(m) for n in ("h2", "head") for m in jax.tree.leaves(adam.mu[n])
    )
    assert np.any(adam.mu["h1"]["kernel"]) and adam.count == 3
    assert first.net.params.keys() == after.net.params.keys()
