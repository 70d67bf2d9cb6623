"""Normalisation of layers and of inputs, against numpy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import backprop
from cl_bench.networks import _input_norm, _normalise, _online_norm, mlp
from cl_bench.units import constrain_net
from tests import tiny
from tests.reference import mlp as mlp_oracle
from tests.reference import online_norm as oracle

close = chex.assert_trees_all_close
AFFINE = {"scale": np.float32([0.5, 1.0, 2.0]), "shift": np.float32([-1.0, 0.0, 3.0])}


def inputs(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (3.0 * rng.normal(size=shape) + 1.5).astype(np.float32)


def train(net, state, x):
    return tiny.quick_jit(lambda s, x: net.apply(s, x, train=True, key=None))(state, x)


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 5, 3)], ids=["dense", "conv"])
def test_layer_norm_is_over_all_of_an_example(shape):
    z = inputs(*shape)
    found, stats = _normalise.normalise("layer", AFFINE, {}, z, train=True)
    for example, normal in zip(np.float64(z), found, strict=True):
        expected = (example - example.mean()) / np.sqrt(example.var() + 1e-5)
        expected = AFFINE["scale"] * expected + AFFINE["shift"]
        close(normal, np.float32(expected), rtol=1e-5, atol=1e-6)
    assert stats == {}


def test_layer_norm_counts_only_units_in_use():
    z, alive = inputs(4, 3), np.array([True, False, True])
    found, _ = _normalise.normalise("layer", AFFINE, {}, z, train=True, alive=alive)
    small = {name: leaf[alive] for name, leaf in AFFINE.items()}
    expected, _ = _normalise.normalise("layer", small, {}, z[:, alive], train=True)
    close(found[:, alive], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 5, 3)], ids=["dense", "conv"])
def test_batch_norm_and_its_running_statistics(shape):
    _, stats = _normalise.init_norm("batch", 3)
    mean, var = np.zeros(3), np.ones(3)
    for step in range(10):
        z = inputs(*shape, seed=step)
        rows = np.float64(z).reshape(-1, 3)
        found, stats = _normalise.normalise("batch", AFFINE, stats, z, train=True)
        expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
        expected = np.float32(AFFINE["scale"] * expected + AFFINE["shift"])
        close(found.reshape(-1, 3), expected, rtol=1e-4, atol=1e-5)
        mean = 0.9 * mean + 0.1 * rows.mean(0)
        var = 0.9 * var + 0.1 * rows.var(0, ddof=1)
    close(stats, {"mean": np.float32(mean), "var": np.float32(var)}, rtol=1e-5)
    z = inputs(*shape, seed=99)
    found, after = _normalise.normalise("batch", AFFINE, stats, z, train=False)
    expected = AFFINE["scale"] * (z - mean) / np.sqrt(var + 1e-5) + AFFINE["shift"]
    close(found, np.float32(expected), rtol=1e-4, atol=1e-5)
    close(after, stats, rtol=0)


@pytest.mark.parametrize("shape", [(1, 3), (4, 3), (4, 2, 5, 3)])
def test_online_norm_as_the_oracle_for_50_steps(shape):
    decays, epsilon = (0.95, 0.9), 1e-5
    state = oracle.first_state(3)
    stats = {name: jnp.float32(state[name]) for name in ("mean", "var")}
    errors = _online_norm.init_errors(3)

    @tiny.quick_jit
    def both(z, stats, errors, gradient):
        def forward(z, errors):
            return _online_norm.normalise(z, stats, errors, True, *decays, epsilon)

        y, pull_back, new = jax.vjp(forward, z, errors, has_aux=True)
        return y, new, *pull_back(gradient)

    flat = (shape[0], -1, 3)
    for step in range(50):
        z, gradient = inputs(*shape, seed=step), inputs(*shape, seed=1000 + step)
        y, stats, by_z, errors = both(z, stats, errors, gradient)
        wide = np.float64(z).reshape(flat)
        y_o, scales, state = oracle.forward(state, wide, decays[0], epsilon)
        up = np.float64(gradient).reshape(flat)
        by_z_o, state = oracle.backward(state, up, y_o, scales, decays[1])
        expected = {"y": y_o.reshape(shape), "dz": by_z_o.reshape(shape), **state}
        expected = jax.tree.map(np.float32, expected)
        close({"y": y, "dz": by_z, **stats, **errors}, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(errors["error_y"]).min() > 0.01


def test_a_batch_of_online_norm_is_its_examples_one_by_one():
    z = inputs(4, 3)
    _, stats = _normalise.init_norm("online", 3)
    errors = _online_norm.init_errors(3)
    whole, after = _normalise.normalise(
        "online", AFFINE, stats, z, train=True, errors=errors
    )
    for i in range(4):
        one, stats = _normalise.normalise(
            "online", AFFINE, stats, z[i : i + 1], train=True, errors=errors
        )
        close(one[0], whole[i], rtol=1e-5, atol=1e-6)
    close(stats, after, rtol=1e-6)


def test_online_norm_is_clamped_and_evaluates_with_its_running_statistics():
    stats = {"mean": jnp.full(3, 2.0), "var": jnp.full(3, 4.0)}
    z = jnp.array([[2.0, 6.0, -90.0]])
    found, after = _normalise.normalise("online", AFFINE, stats, z, train=False)
    close(found, jnp.array([[-1.0, 2.0, -5.0]]), rtol=1e-4)
    close(after, stats, rtol=0)


def test_backprop_through_online_norm_as_the_oracle_for_50_steps():
    """What the backward pass writes has to arrive in the next step's statistics."""
    net = mlp.make(tiny.SPEC, widths=(6,), norm="online")
    data = tiny.batches(50)
    method = backprop.make(net, tiny.SPEC, backprop.Hyper(step_size=0.1))
    first, learners, signals = tiny.run(method, data)
    params, state = mlp_oracle.cast(first.net.params), oracle.first_state(6)
    for i in range(50):
        x = np.float64(data.x[i])
        params, state, loss = oracle.sgd_step(params, state, x, data.y[i], 0.1)
        now = tiny.at(learners, i).net
        found = {**now.stats["h1"], **now.stats["backward"]["h1"]}
        expected = jax.tree.map(np.float32, (params, state))
        close((now.params, found), expected, rtol=1e-4, atol=1e-5)
        close(signals.loss[i], np.float32(loss), rtol=1e-4)
    assert np.abs(state["error_y"]).min() > 1e-4


@pytest.mark.parametrize("size", [1, 4])
def test_input_statistics_are_bias_corrected_averages(size):
    decay, steps = 0.9, 12
    batches = inputs(steps, size, 3)
    stats = _input_norm.init(3)
    for t in range(steps):
        found, stats = _input_norm.standardise(
            batches[t], stats, train=True, decay=decay
        )
        share = decay ** np.arange(t, -1, -1.0)
        share = (share / share.sum())[:, None, None] / size
        seen = np.float64(batches[: t + 1])
        mean = (share * seen).sum((0, 1))
        var = (share * (seen - mean) ** 2).sum((0, 1))
        kept = {"mean": np.float32(mean), "var": np.float32(var)}
        close({name: stats[name] for name in kept}, kept, rtol=1e-4, atol=1e-6)
        expected = (batches[t] - mean) / np.sqrt(var + 1e-5)
        close(found, np.float32(expected), rtol=1e-3, atol=1e-4)
    found, after = _input_norm.standardise(batches[0], stats, train=False, decay=decay)
    close(after, stats, rtol=0)
    expected = (batches[0] - mean) / np.sqrt(var + 1e-5)
    close(found, np.float32(expected), rtol=1e-4, atol=1e-5)


def test_one_input_at_a_time_stays_in_bounds_after_a_change():
    stats = _input_norm.init(2)
    for step in range(300):
        x = jnp.array([[0.0 if step < 299 else 1.0, 5.0]])
        found, stats = _input_norm.standardise(x, stats, train=True, decay=0.99)
    assert 9.0 < found[0, 0] <= 10.0 and found[0, 1] == 0.0


def test_the_network_standardises_its_inputs():
    net = mlp.make(tiny.SPEC, widths=(6,), input_norm="ema", input_decay=0.9)
    state = net.init(tiny.KEY)
    x = inputs(4, tiny.INPUTS)
    _, acts, stats = train(net, state, x)
    expected, kept = _input_norm.standardise(
        x, state.stats["input"], train=True, decay=0.9
    )
    close((acts["x"], stats["input"]), (expected, kept), rtol=1e-6)
    close(acts["x"].mean(0), jnp.zeros(tiny.INPUTS), atol=1e-5)
    hidden = jax.nn.relu(expected @ state.params["h1"]["kernel"])
    close(acts["h1"], hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "layer", "online"])
def test_normalised_layers_in_the_network(norm):
    """Affine, norm, activation, in this order; spare units change nothing."""
    net = mlp.make(tiny.SPEC, widths=(6, 5), norm=norm, spare_units=2)
    state = net.init(tiny.KEY)
    leaves = {"scale": jnp.linspace(0.5, 2.0, 8), "shift": jnp.linspace(-1.0, 1.0, 8)}
    params = {**state.params, "h1": {**state.params["h1"], **leaves}}
    state = constrain_net(state._replace(params=params), net.units)
    x = inputs(4, tiny.INPUTS)
    _, acts, stats = train(net, state, x)
    layer = {name: leaf[..., :6] for name, leaf in state.params["h1"].items()}
    own, errors = _normalise.init_norm(norm, 6)[1], _online_norm.init_errors(6)
    z = x @ layer["kernel"] + layer["bias"]
    z, own = _normalise.normalise(norm, layer, own, z, train=True, errors=errors)
    close(acts["h1"][:, :6], jax.nn.relu(z), rtol=1e-4, atol=1e-5)
    assert (acts["h1"][:, 6:] == 0).all() and ("h1" in stats) == (norm != "layer")
    close({k: v[:6] for k, v in stats.get("h1", {}).items()}, own, rtol=1e-5)


def test_batch_norm_of_single_examples_is_refused():
    spec = tiny.SPEC._replace(batch_size=1)
    with pytest.raises(ValueError, match=r"'online' and norm 'layer' work"):
        mlp.make(spec, norm="batch")
    mlp.make(spec, norm="online")
