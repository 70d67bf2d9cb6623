"""The multi-layer perceptron: initialisation, activations, taps, gates, capacity."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import testing, units
from cl_bench.methods import continual_backprop
from cl_bench.networks import _activations, mlp
from tests import tiny
from tests.reference import mlp as oracle

X = tiny.batches(1).x[0]
Y = tiny.batches(1).y[0]
close = chex.assert_trees_all_close

IN_ORACLE = ("relu", "leaky_relu", "tanh", "sigmoid", "elu", "swish", "linear")
OPTIONS = {
    "crelu": {"activation": "crelu"},
    "fourier": {"activation": "fourier", "init": "pytorch"},
    "prelu": {"activation": "prelu"},
    "adalin_relu": {"activation": "adalin_relu"},
    "adalin_tanh": {"activation": "adalin_tanh"},
    "batch": {"norm": "batch"},
    "layer": {"norm": "layer"},
    "online": {"norm": "online"},
    "dropout": {"dropout": 0.5},
    "ema": {"input_norm": "ema"},
    "spare": {"norm": "online", "spare_units": 2},
}
COMBINED = {
    "prelu": {"activation": "prelu", "norm": "batch"},
    "adalin": {"activation": "adalin_tanh", "norm": "layer", "spare_units": 2},
    "crelu": {"activation": "crelu", "norm": "layer", "spare_units": 1},
    "fourier": {
        "activation": "fourier", "norm": "online", "dropout": 0.2, "input_norm": "ema",
    },
}  # fmt: skip


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu6"}, "activation 'relu6' is none of"),
        ({"init": "he"}, "init 'he' is none of"),
        ({"widths": (0,)}, "too small"),
        ({"spare_units": -1}, "too small"),
        ({"norm": "group"}, "norm 'group' is none of"),
        ({"norm_decays": (0.9, 1.0)}, "below 1"),
        ({"dropout": 1.0}, "dropout 1.0: must"),
        ({"input_norm": "zscore"}, "input_norm 'zscore' is none of"),
        ({"input_decay": 1.0}, "input_decay 1.0: must"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        mlp.make(tiny.SPEC, **options)


def sided(z, left, right):
    return np.where(z > 0, right, left)


@pytest.mark.parametrize(
    ("name", "leaf", "value", "by_z", "by_leaf"),
    [
        ("prelu", "prelu", lambda z, a: sided(z, a * z, z),
         lambda z, a: sided(z, a, 1.0), lambda z, a: sided(z, z, 0.0)),
        ("adalin_relu", "adalin", lambda z, a: sided(z, a * z, z),
         lambda z, a: sided(z, a, 1.0), lambda z, a: sided(z, z, 0.0)),
        ("adalin_tanh", "adalin",
         lambda z, a: np.tanh(z) + a * z * np.cos(np.pi / 2 / np.cosh(z) ** 2),
         lambda z, a: np.cosh(z) ** -2.0 + a * np.cos(np.pi / 2 / np.cosh(z) ** 2),
         lambda z, a: z * np.cos(np.pi / 2 / np.cosh(z) ** 2)),
    ],
)  # fmt: skip
def test_activations_with_a_parameter_a_unit(name, leaf, value, by_z, by_leaf):
    z = np.linspace(-3.0, 3.0, 15).reshape(5, 3)
    a = np.array([-0.5, 0.1, 2.0])
    up = np.random.default_rng(0).normal(size=z.shape)
    apply = lambda a, z: _activations.activate(name, {leaf: a}, z)
    found, pull_back = jax.vjp(apply, jnp.float32(a), jnp.float32(z))
    expected = value(z, a), ((up * by_leaf(z, a)).sum(0), up * by_z(z, a))
    expected = jax.tree.map(np.float32, expected)
    close((found, pull_back(jnp.float32(up))), expected, rtol=1e-4, atol=1e-5)
    start = {"prelu": 0.25, "adalin": 0.0}[leaf]
    close(_activations.init_leaves(name, 3), {leaf: jnp.full(3, start)})


@pytest.mark.parametrize(
    ("name", "pair", "slopes"),
    [
        ("crelu", lambda z: (np.maximum(z, 0), np.maximum(-z, 0)),
         lambda z: (z > 0, -1.0 * (z < 0))),
        ("fourier", lambda z: (np.sin(z), np.cos(z)),
         lambda z: (np.cos(z), -np.sin(z))),
    ],
)  # fmt: skip
def test_activations_with_two_features_a_unit(name, pair, slopes):
    z = np.linspace(-3.0, 3.0, 15).reshape(5, 3)
    up = np.random.default_rng(0).normal(size=(5, 2, 3))
    apply = lambda z: _activations.activate(name, {}, z)
    found, pull_back = jax.vjp(apply, jnp.float32(z))
    expected = np.float32(np.stack(pair(z), axis=1))
    close(found, expected, rtol=1e-5, atol=1e-6)
    by_z = sum(up[:, i] * slope for i, slope in enumerate(slopes(z)))
    close(pull_back(jnp.float32(up))[0], np.float32(by_z), rtol=1e-4, atol=1e-5)
    flat = _activations.flatten_features(found)
    close(flat, np.concatenate([expected[:, 0], expected[:, 1]], axis=1))


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


@pytest.mark.parametrize("init", ["kaiming", "xavier"])
@pytest.mark.parametrize("activation", ["crelu", "fourier"])
def test_pre_activations_keep_their_variance(activation, init):
    """Two features a unit: their squares add up to z^2, or to 1, over twice the inputs."""
    net = mlp.make(tiny.SPEC, widths=(300, 300), activation=activation, init=init)
    state = net.init(tiny.KEY)
    x = jax.random.normal(tiny.KEY, (50, 12))
    z1 = x @ state.params["h1"]["kernel"]
    h = _activations.flatten_features(_activations.activate(activation, {}, z1))
    ratio = jnp.var(h @ state.params["h2"]["kernel"])
    target = jnp.var(z1) if activation == "crelu" else 1.0
    factor = 1.0 if init == "kaiming" else 2.0 * 600 / 900
    assert abs(ratio / (factor * target) - 1.0) < 0.15


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


@pytest.mark.parametrize("name", COMBINED)
def test_options_keep_the_contract(name):
    testing.check_network(mlp, widths=(5, 4), **COMBINED[name])


def test_a_method_keeps_its_contract_on_all_options_at_once():
    net = mlp.make(testing.tiny_stream().spec, widths=(5,), **COMBINED["fourier"])
    hyper = continual_backprop.Hyper(replacement_rate=0.1, maturity_threshold=5)
    testing.check_method(continual_backprop, net=net, hyper=hyper)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_replaced_unit_starts_anew(name):
    """Continual backprop: what belongs to the unit is neutral, statistics included."""
    net = mlp.make(tiny.SPEC, widths=(8,), **OPTIONS[name])
    hyper = continual_backprop.Hyper(
        step_size=0.05, replacement_rate=0.02, maturity_threshold=2
    )
    method = continual_backprop.make(net, tiny.SPEC, hyper)
    _, learners, signals = tiny.run(method, tiny.batches(25))
    assert np.isfinite(signals.loss).all()
    state, unit = learners.net, net.units[0]
    rows = state.params["head"]["kernel"].reshape(25, unit.repeat, unit.size, -1)
    in_use = state.alive["h1"] if state.alive else np.ones((25, unit.size), bool)
    gone = (rows == 0).all((1, 3)) & in_use
    assert gone.sum() >= 2
    own = {key: v for key, v in state.params["h1"].items() if key != "kernel"}
    kept = {
        **state.stats.get("h1", {}),
        **state.stats.get("backward", {}).get("h1", {}),
    }
    for leaf, value in (own | kept).items():
        neutral = {**units.NEUTRAL_LEAVES, **units.NEUTRAL_STATISTICS}.get(leaf, 0.0)
        assert (value[gone] == neutral).all(), leaf
        if (name, leaf) != ("batch", "bias"):  # a bias under batch norm does nothing
            assert (value[~gone & in_use] != neutral).any(), leaf
