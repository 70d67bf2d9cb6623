"""Pollution against a transcription of eqs. 3 and 4 in loops, and its repairs by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.metrics import _pollution
from cl_bench.networks import mlp
from tests.tiny import SPEC, batches

RNG = np.random.default_rng(0)
SIZES = (("h1", 5, 4), ("head", 4, 3))
KERNELS = {n: jnp.float32(RNG.normal(size=(m, u))) for n, m, u in SIZES}
INPUTS = {n: jnp.float32(RNG.uniform(size=(7, m))) for n, m, u in SIZES}
MASKS = {n: jnp.asarray(RNG.random((3, m, u)) < 0.5) for n, m, u in SIZES}  # 3 tasks


def of_task(j):
    return {name: mask[j] for name, mask in MASKS.items()}


def measured(kind, i, j, **options):
    own = _pollution.contributions(KERNELS, of_task(i), INPUTS)
    other = _pollution.contributions(KERNELS, of_task(j), INPUTS)
    return _pollution.pollution(kind, own, other, **options)


def by_equation(i, j, guard):
    """Eqs. 3 and 4 as printed, one weight at a time; what the guard leaves out."""
    layers, lost = [], []
    kernels, inputs, masks = jax.tree.map(np.asarray, (KERNELS, INPUTS, MASKS))
    for name, width, neurons in SIZES:
        p, missing = [], 0
        for n in range(neurons):
            sums = np.zeros((2, len(inputs[name])))
            for x, example in enumerate(inputs[name]):
                for m in range(width):
                    term = kernels[name][m, n] * example[m]
                    sums[0, x] += term if masks[name][i, m, n] else 0.0
                    sums[1, x] += term if masks[name][j, m, n] else 0.0
            level = guard * np.sqrt(np.mean(sums[0] ** 2))
            terms = [b / a for a, b in sums.T if abs(a) > level]
            missing += sums.shape[1] - len(terms)
            p.append(np.mean(terms) if terms else np.nan)
        layers.append(np.nanmean(p))
        lost.append(missing / (neurons * len(inputs[name])))
    return np.mean(layers), np.mean(lost)


@pytest.mark.parametrize("guard", [1e-6, 0.5])
@pytest.mark.parametrize("i, j", [(0, 1), (2, 1)])
def test_literal_against_the_equations(i, j, guard):
    found = measured("literal", i, j, guard=guard)
    network, lost = by_equation(i, j, guard)
    np.testing.assert_allclose(found.network, network, rtol=2e-4)
    np.testing.assert_allclose(found.undefined, lost, rtol=1e-6)
    if guard == 0.5:
        assert 0 < float(found.undefined) < 1


@pytest.mark.parametrize("kind, value", [
    ("literal", 1.0), ("variance_ratio", 1.0), ("absolute_share", 0.5)
])  # fmt: skip
def test_a_task_and_itself(kind, value):
    found = measured(kind, 1, 1)
    chex.assert_trees_all_close(found.network, jnp.float32(value), rtol=1e-6)
    # One of the head's three neurons has no protected weight: nothing to compare.
    assert not np.asarray(MASKS["head"][1, :, 1]).any()
    np.testing.assert_allclose(found.undefined, (0 + 1 / 3) / 2, rtol=1e-6)


# One neuron, four examples: s_i = 1, -1, 2, 0 and s_j = 2, 2, -2, 5.
OWN = {"h": jnp.array([[1.0], [-1.0], [2.0], [0.0]])}
OTHER = {"h": jnp.array([[2.0], [2.0], [-2.0], [5.0]])}
BY_HAND = {
    "literal": ((2 - 2 - 1) / 3, 1 / 4),
    "variance_ratio": (np.var([2, 2, -2, 5]) / np.var([1, -1, 2, 0]), 0.0),
    "absolute_share": (11 / (4 + 11), 0.0),
}


@pytest.mark.parametrize("kind", _pollution.KINDS)
def test_by_hand(kind):
    found = _pollution.pollution(kind, OWN, OTHER)
    value, lost = BY_HAND[kind]
    np.testing.assert_allclose(np.asarray(found.neurons["h"]), value, rtol=1e-6)
    np.testing.assert_allclose(found.undefined, lost)


def test_nothing_of_its_own_to_compare_with():
    own = {"h": jnp.zeros((4, 1))}
    for kind in ("literal", "variance_ratio"):
        found = _pollution.pollution(kind, own, OTHER)
        assert np.isnan(found.network) and float(found.undefined) == 1.0
    assert float(_pollution.pollution("absolute_share", own, OTHER).network) == 1.0
    assert np.isnan(_pollution.pollution("absolute_share", own, own).network)


def test_an_undefined_neuron_is_left_out_of_its_layers_mean():
    own = {"h": jnp.concatenate([OWN["h"], jnp.zeros((4, 1))], axis=1)}
    other = {"h": jnp.repeat(OTHER["h"], 2, axis=1)}
    found = _pollution.pollution("variance_ratio", own, other)
    value = BY_HAND["variance_ratio"][0]
    np.testing.assert_allclose(found.layers["h"], value, rtol=1e-6)
    want = np.array([value, np.nan])
    np.testing.assert_allclose(np.asarray(found.neurons["h"]), want, rtol=1e-6)
    assert float(found.undefined) == 0.5


def test_positions_count_as_examples():
    own, other = ({"h": s["h"].reshape(2, 2, 1)} for s in (OWN, OTHER))
    found = _pollution.pollution("absolute_share", own, other)
    np.testing.assert_allclose(found.network, 11 / 15, rtol=1e-6)


@pytest.mark.parametrize("kind", _pollution.KINDS)
def test_a_row_is_every_pair(kind):
    found = jax.jit(_pollution.row, static_argnums=0)(kind, KERNELS, INPUTS, MASKS, 2)
    pairs = [measured(kind, 2, j) for j in range(3)]
    wanted = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_rules_pick_what_they_say():
    weights = {"h": jnp.array([[1.0, -4.0], [3.0, 0.5]])}
    start = {"h": jnp.array([[1.0, -4.5], [1.0, 0.4]])}
    fisher = {"h": jnp.array([[9.0, 0.0], [0.0, 7.0]])}

    def mask(rule, fraction=0.5):
        found = _pollution.protected(
            rule, fraction, weights=weights, fisher=fisher, start=start
        )
        return found["h"].astype(int).tolist()

    assert mask("magnitude") == [[0, 1], [1, 0]]
    assert mask("change") == [[0, 1], [1, 0]]
    assert mask("change", 0.25) == [[0, 0], [1, 0]]
    assert mask("fisher") == [[1, 0], [0, 1]]
    # A weight of which nothing is known to matter is never protected.
    assert mask("fisher", 1.0) == [[1, 0], [0, 1]]
    assert mask("magnitude", 1.0) == [[1, 1], [1, 1]]


def test_bad_input():
    weights = {"h": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="none of magnitude, fisher, change, frozen"):
        _pollution.protected("freezing", 0.5, weights=weights)
    with pytest.raises(ValueError, match="needs `frozen`"):
        _pollution.protected("frozen", 0.5, weights=weights)
    with pytest.raises(ValueError, match="needs `start`"):
        _pollution.protected("change", 0.5, weights=weights)
    with pytest.raises(ValueError, match=r"fraction=0\.0"):
        _pollution.protected("magnitude", 0.0, weights=weights)
    with pytest.raises(ValueError, match="none of literal"):
        _pollution.pollution("exact", OWN, OTHER)
    with pytest.raises(ValueError, match="dense layers"):
        _pollution.dense_inputs((), {"c1": jnp.ones((3, 3, 2, 4))}, {})


@pytest.fixture(scope="module")
def network():
    net = mlp.make(SPEC, widths=(6, 5))
    state = net.init(jax.random.key(0))
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batches(1, size=16))
    return net, state, batch


def test_contributions_of_all_weights_are_the_network_without_its_biases(network):
    net, state, batch = network
    _, acts, _ = net.apply(state, batch.x, train=False, key=None)
    kernels = {name: leaves["kernel"] for name, leaves in state.params.items()}
    inputs = _pollution.dense_inputs(net.units, kernels, acts)
    everything = jax.tree.map(lambda k: jnp.ones(k.shape, bool), kernels)
    found = _pollution.contributions(kernels, everything, inputs)
    z = found["h2"] + state.params["h2"]["bias"]
    chex.assert_trees_all_close(jnp.maximum(z, 0.0), acts["h2"], rtol=1e-5, atol=1e-6)


def test_causal_is_the_accuracy_that_goes_with_the_weights(network):
    net, state, batch = network

    def accuracy(params):
        logits = net.apply(
            state._replace(params=params), batch.x, train=False, key=None
        )
        return jnp.mean(jnp.argmax(logits[0], axis=-1) == labels)

    def labels_of(params):
        at = state._replace(params=params)
        return jnp.argmax(net.apply(at, batch.x, train=False, key=None)[0], axis=-1)

    labels = labels_of(state.params)  # so that the network is right everywhere
    kernels = {name: leaves["kernel"] for name, leaves in state.params.items()}
    nothing = jax.tree.map(lambda k: jnp.zeros(k.shape, bool), kernels)
    assert float(_pollution.causal(accuracy, state.params, nothing)) == 0.0
    everything = jax.tree.map(lambda k: jnp.ones(k.shape, bool), kernels)
    # Without any weight the head's bias alone decides, always for one class.
    constant = jnp.argmax(state.params["head"]["bias"])
    want = 1.0 - float(jnp.mean(labels == constant))
    found = _pollution.causal(accuracy, state.params, everything)
    assert float(found) == pytest.approx(want) and want > 0
    removed = _pollution.without(state.params, everything)
    chex.assert_trees_all_equal(removed["h1"]["bias"], state.params["h1"]["bias"])
