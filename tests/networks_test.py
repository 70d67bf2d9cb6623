"""The multi-layer perceptron: initialisation, activations, taps, gates, capacity."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import units
from cl_bench.networks import mlp
from tests import tiny
from tests.reference import mlp as oracle

X = tiny.batches(1).x[0]
Y = tiny.batches(1).y[0]
close = chex.assert_trees_all_close

IN_ORACLE = ("relu", "leaky_relu", "tanh", "sigmoid", "elu", "swish", "linear")


def plain(net, state, key=None, train=True, **options):
    return net.apply(state, X, train=train, key=key, **options)


def forward(net, state, key=None, train=True, **options):
    run = lambda state, options: plain(net, state, key, train, **options)
    return tiny.quick_jit(run)(state, options)


@pytest.mark.parametrize("activation", IN_ORACLE)
@pytest.mark.parametrize("init", ["kaiming", "lecun", "xavier", "pytorch"])
def test_weights_are_uniform_within_the_papers_bounds(init, activation):
    spec = tiny.SPEC._replace(input_shape=(100,))
    net = mlp.make(spec, widths=(90, 80), activation=activation, init=init)
    params = net.init(tiny.KEY).params
    name = {"pytorch": "default"}.get(init, init)
    for layer, fan_in, fan_out in [("h1", 100, 90), ("h2", 90, 80), ("head", 80, 4)]:
        gain = "linear" if layer == "head" else activation
        bound = oracle.init_bound(name, gain, fan_in, fan_out)
        w, b = np.asarray(params[layer]["kernel"]), np.asarray(params[layer]["bias"])
        assert w.shape == (fan_in, fan_out) and b.shape == (fan_out,)
        assert 0.97 * bound < np.abs(w).max() <= bound * (1 + 1e-6)
        assert abs(w.std() / (bound / math.sqrt(3)) - 1.0) < 0.1
        assert abs(w.mean()) < 0.2 * bound
        if init != "pytorch":
            assert (b == 0).all()
        elif len(b) > 10:
            assert 0.8 * bound < np.abs(b).max() <= bound * (1 + 1e-6)


def test_new_columns_are_drawn_as_the_first_ones():
    net = mlp.make(tiny.SPEC, widths=(8, 5), init="xavier", activation="tanh")
    drawn = tiny.quick_jit(lambda key: net.columns(key, "h2", 400))(tiny.KEY)
    chex.assert_shape(drawn, (8, 400))
    bound = oracle.init_bound("xavier", "tanh", 8, 5)
    assert 0.99 * bound < jnp.abs(drawn).max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("activation", IN_ORACLE)
def test_forward_backward_and_taps_as_the_oracle(activation):
    net = mlp.make(tiny.SPEC, widths=(8, 6), activation=activation)
    state = net.init(tiny.KEY)
    # One unit has no input: its pre-activations are exactly 0, where ReLU has a kink.
    kernel = state.params["h2"]["kernel"].at[:, 0].set(0.0)
    params = {**state.params, "h2": {**state.params["h2"], "kernel": kernel}}
    state = state._replace(params=params)
    taps = {
        "h1": jnp.zeros((4, 8)),
        "h2": jnp.zeros((4, 6)),
        "logits": jnp.zeros((4, 4)),
    }

    def loss(params, taps):
        logits, acts, _ = plain(net, state._replace(params=params), taps=taps)
        return jnp.mean(tiny.SPEC.loss.per_example(logits, Y)), (logits, acts)

    differentiate = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, (logits, acts)), (grads, by_tap) = tiny.quick_jit(differentiate)(
        params, taps
    )
    expected, seen, expected_grads = oracle.loss_and_grads(
        params, X, Y, activation=activation
    )
    assert set(acts) == {"x", "h1", "h2"}
    found = {**acts, "logits": logits, "loss": value, "grads": grads}
    target = {**seen, "loss": expected, "grads": expected_grads}
    target = jax.tree.map(np.float32, target)
    close(found, target, rtol=1e-5, atol=1e-6)
    for tap, module in [("h1", "h1"), ("h2", "h2"), ("logits", "head")]:
        # dL/dz summed over the batch is the gradient of the layer's bias.
        close(by_tap[tap].sum(0), grads[module]["bias"], rtol=1e-5, atol=1e-7)
        assert jnp.abs(by_tap[tap]).max() > 1e-4


def test_gates_scale_the_outputs_of_units():
    net = mlp.make(tiny.SPEC, widths=(8, 6))
    state = net.init(tiny.KEY)
    gate = jnp.linspace(0.0, 2.0, 8)
    _, plain, _ = forward(net, state)
    logits, gated, _ = forward(net, state, gates={"h1": gate})
    close(gated["h1"], plain["h1"] * gate)
    by_example = jnp.tile(gate, (4, 1))
    close(forward(net, state, gates={"h1": by_example})[0], logits, rtol=1e-6)


def test_forbidden_edges_carry_nothing():
    net = mlp.make(tiny.SPEC, widths=(8,))
    state = net.init(tiny.KEY)
    edges = {"h1": jax.random.bernoulli(tiny.KEY, 0.5, (12, 8))}
    kernel = jnp.where(edges["h1"], state.params["h1"]["kernel"], 0.0)
    zeroed = {**state.params, "h1": {**state.params["h1"], "kernel": kernel}}
    masked, _, _ = forward(net, state._replace(edges=edges))
    close(masked, forward(net, state._replace(params=zeroed))[0])
    assert jnp.abs(masked - forward(net, state)[0]).max() > 0.1


def test_spare_units_stay_silent_even_where_phi_of_0_is_not_0():
    net = mlp.make(tiny.SPEC, widths=(5, 3), spare_units=2, activation="sigmoid")
    assert [unit.size for unit in net.units] == [7, 5]
    state = units.constrain_net(net.init(tiny.KEY), net.units)
    assert [int(alive.sum()) for alive in state.alive.values()] == [5, 3]

    def loss(params):
        logits, acts, _ = plain(net, state._replace(params=params))
        return jnp.sum(logits**2), acts

    grads, acts = tiny.quick_jit(jax.grad(loss, has_aux=True))(state.params)
    assert (acts["h1"][:, 5:] == 0).all() and (acts["h1"][:, :5] > 0).all()
    for tree in (state.params, grads):
        assert (tree["h1"]["kernel"][:, 5:] == 0).all()
        assert (tree["h1"]["bias"][5:] == 0).all()
        assert (tree["h2"]["kernel"][5:] == 0).all()


def test_depth_0_is_linear():
    net = mlp.make(tiny.SPEC, widths=())
    state = net.init(tiny.KEY)
    logits, acts, _ = forward(net, state)
    close(logits, X @ state.params["head"]["kernel"] + state.params["head"]["bias"])
    assert net.units == () and set(acts) == {"x"}
    bound = oracle.init_bound("kaiming", "linear", 12, 4)
    assert jnp.abs(state.params["head"]["kernel"]).max() <= bound


@pytest.mark.parametrize("activation", ["crelu", "fourier"])
def test_two_features_are_two_rows_of_the_reader(activation):
    net = mlp.make(tiny.SPEC, widths=(8, 6), activation=activation)
    state = net.init(tiny.KEY)
    assert [unit.repeat for unit in net.units] == [2, 2]
    logits, acts, _ = forward(net, state)
    chex.assert_shape([acts["h1"], acts["h2"]], [(4, 2, 8), (4, 2, 6)])
    features = jnp.concatenate([acts["h2"][:, 0], acts["h2"][:, 1]], axis=1)
    close(logits, features @ state.params["head"]["kernel"], rtol=1e-5, atol=1e-6)
    # The second layer's inputs are 16, so is its bound.
    gain = math.sqrt(2.0)
    assert jnp.abs(state.params["h2"]["kernel"]).max() <= gain * math.sqrt(3 / 16)
    chex.assert_shape(net.columns(tiny.KEY, "h2", 3), (16, 3))
    taps = {"h1": jnp.zeros((4, 8)), "h2": jnp.zeros((4, 6))}

    def loss(params, taps):
        logits = plain(net, state._replace(params=params), taps=taps)[0]
        return jnp.sum(logits**2)

    by_weight, by_tap = tiny.quick_jit(jax.grad(loss, (0, 1)))(state.params, taps)
    for tap, h in [("h1", X), ("h2", acts["h1"].reshape(4, 16))]:
        close(by_tap[tap].sum(0), by_weight[tap]["bias"], rtol=1e-4, atol=1e-5)
        kernel = h.T @ by_tap[tap]
        close(kernel, by_weight[tap]["kernel"], rtol=1e-4, atol=1e-5)


def test_dropout_keeps_the_expectation_and_is_off_in_evaluation():
    options = {"widths": (500, 400), "activation": "linear"}
    net = mlp.make(tiny.SPEC, dropout=0.3, **options)
    state = net.init(tiny.KEY)
    _, whole, _ = forward(mlp.make(tiny.SPEC, **options), state)
    _, acts, _ = forward(net, state, tiny.KEY)
    kept = acts["h1"] != 0
    assert abs(kept.mean() - 0.7) < 4 * math.sqrt(0.21 / 2000)
    close(acts["h1"], jnp.where(kept, whole["h1"] / 0.7, 0.0), rtol=1e-5)
    assert (kept[:, :400] != (acts["h2"] != 0)).any()  # each layer has its own mask
    _, again, _ = forward(net, state, jax.random.key(8))
    assert (kept != (again["h1"] != 0)).any() and (kept[0] != kept[1]).any()
    close(forward(net, state, train=False)[1], whole, rtol=0)
