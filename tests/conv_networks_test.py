"""Convolutional networks: against numpy, the papers' sizes, resets, and learning."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import testing, units
from cl_bench.methods import continual_backprop
from cl_bench.networks import _activations, _conv, _input_norm, cnn, resnet18
from tests import tiny
from tests.conv_setting import SPEC, close, images
from tests.reference import conv as oracle

SMALL: dict[str, Any] = {"channels": (3, 4), "kernels": (3, 2), "dense": (5,)}
RES_SPEC = tiny.SPEC._replace(input_shape=(5, 5, 2))


def small_cnn(**options):
    net = cnn.make(SPEC, **{**SMALL, **options})
    return net, net.init(tiny.KEY)


# ---- the CNN


@pytest.mark.parametrize("activation", [None, "linear"])
def test_cnn_as_numpy(activation):
    net, state = small_cnn(conv_activation=activation)
    x = images(SPEC)
    logits, acts, _ = net.apply(state, x.reshape(4, -1), train=True, key=None)
    expected = oracle.cnn_forward(state.params, x, 2, conv_relu=activation is None)
    found = {**{k: acts[k] for k in ("c1", "c2", "h1")}, "logits": logits}
    close(found, jax.tree.map(np.float32, expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "swish"])
def test_the_pool_is_that_of_the_activations(activation, monkeypatch):
    """max(phi(z)), which the network computes as phi(z) at a maximum of phi(z)."""
    net, state = small_cnn(activation=activation)
    x = images(SPEC)
    if activation != "relu":  # to where swish falls, whose minimum is at -1.28
        state.params["c1"]["bias"] -= 1.5

    def loss(params):
        at = state._replace(params=params)
        return jnp.sum(net.apply(at, x, train=True, key=None)[0] ** 2)

    first = tiny.quick_jit(jax.value_and_grad(loss))(state.params)
    pool, phi = _conv.max_pool, _activations.activate
    monkeypatch.setattr(_conv, "max_pool", lambda z, size, by=None: z)
    monkeypatch.setattr(
        _activations, "activate",
        lambda name, layer, z: phi(name, layer, z) if z.ndim == 2 else pool(
            phi(name, layer, z), 2),
    )  # fmt: skip
    after = tiny.quick_jit(jax.value_and_grad(loss))(state.params)
    close(first, after, rtol=1e-4, atol=1e-6)


def test_two_features_are_pooled_each_and_read_in_the_table_s_order():
    net, state = small_cnn(activation="crelu")
    x = images(SPEC)
    _, acts, _ = net.apply(state, x, train=True, key=None)
    z = oracle.conv(x, state.params["c1"]["kernel"])
    z = z + np.asarray(state.params["c1"]["bias"])
    pair = [oracle.max_pool(np.maximum(s * z, 0), 2)[0] for s in (1, -1)]
    close(acts["c1"], np.float32(np.stack(pair, 3)), rtol=1e-4, atol=1e-5)
    assert [u.repeat for u in net.units] == [2, 2 * 1 * 1, 2]
    # Closing a unit in the activations is closing its rows in the reader.
    for unit in net.units:
        mask = jnp.arange(unit.size) == 1
        gated = net.apply(
            state, x, train=True, key=None, gates={unit.name: 1.0 - mask}
        )[0]
        params = units.set_outgoing(state.params, unit, mask, 0.0)
        cut = net.apply(state._replace(params=params), x, train=True, key=None)[0]
        close(gated, cut, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_cnn_standardises_each_pixel_of_each_colour(train):
    net, state = small_cnn(input_norm="ema", input_decay=0.9)
    x = 3.0 + 2.0 * images(SPEC)
    _, acts, stats = net.apply(state, x, train=train, key=None)
    expected, kept = _input_norm.standardise(
        x.reshape(4, -1), state.stats["input"], train=train, decay=0.9
    )
    close((acts["x"].reshape(4, -1), stats["input"]), (expected, kept), rtol=1e-6)
    plain = cnn.make(SPEC, **SMALL)
    same = plain.apply(state, acts["x"], train=train, key=None)[1]
    close(acts["c1"], same["c1"], rtol=1e-5, atol=1e-6)


def test_resnet_standardises_its_inputs_too():
    net = resnet18.make(RES_SPEC, width=2, input_norm="ema", input_decay=0.9)
    plain = resnet18.make(RES_SPEC, width=2)
    state, x = net.init(tiny.KEY), 3.0 + 2.0 * images(RES_SPEC)
    logits, acts, stats = net.apply(state, x, train=True, key=None)
    expected, kept = _input_norm.standardise(
        x.reshape(4, -1), state.stats["input"], train=True, decay=0.9
    )
    close((acts["x"].reshape(4, -1), stats["input"]), (expected, kept), rtol=1e-6)
    same = plain.apply(plain.init(tiny.KEY), acts["x"], train=True, key=None)[0]
    close(logits, same, rtol=1e-5, atol=1e-6)


PAPERS: dict[str, tuple[tuple[int, ...], int, dict[str, Any], int]] = {  # images, outputs, settings, parameters counted by hand
    "dohare": (
        (32, 32, 3), 2, {},
        (75 * 32 + 32) + (288 * 64 + 64) + (576 * 128 + 128)
        + (512 * 128 + 128) + (128 * 128 + 128) + (128 * 2 + 2),
    ),
    "kumar": (
        (32, 32, 3), 10,
        {"channels": (16, 16), "kernels": (5, 5), "dense": (100, 100)},
        (75 * 16 + 16) + (400 * 16 + 16) + (400 * 100 + 100) + (100 * 100 + 100)
        + (100 * 10 + 10),
    ),
    "upgd": (
        (32, 32, 3), 10,
        {"channels": (6, 16), "kernels": (5, 5), "dense": (120, 84),
         "conv_activation": "linear"},
        62_006,  # LeNet-5 of the PyTorch tutorial on CIFAR-10
    ),
}  # fmt: skip


@pytest.mark.parametrize("paper", PAPERS)
def test_parameters_of_the_papers_cnns(paper):
    shape, outputs, options, expected = PAPERS[paper]
    spec = SPEC._replace(input_shape=shape, num_outputs=outputs)
    net = cnn.make(spec, **options)
    params = jax.eval_shape(net.init, tiny.KEY).params
    assert sum(p.size for p in jax.tree.leaves(params)) == expected
    last = net.units[len(options.get("channels", (1, 2, 3))) - 1]
    assert last.repeat == (4 if paper == "dohare" else 25)


def test_cnn_weights_are_drawn_within_pytorch_s_bounds():
    net = cnn.make(SPEC, channels=(40, 40), kernels=(3, 2), dense=(30,))
    params = net.init(tiny.KEY).params
    for name, fan_in in [("c1", 18), ("c2", 160), ("h1", 40), ("head", 30)]:
        bound = math.sqrt(1 / fan_in)
        assert 0.9 * bound < jnp.abs(params[name]["kernel"]).max() <= bound
        assert 0.5 * bound < jnp.abs(params[name]["bias"]).max() <= bound


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cnn.make(SPEC), "layer c2: a 3 x 3 kernel and a 2 x 2 pool leave"),
        (lambda: cnn.make(tiny.SPEC), "inputs have shape \\[12\\]; network 'mlp'"),
        (lambda: cnn.make(SPEC, channels=(3,)), "one of each"),
        (lambda: cnn.make(SPEC, **SMALL, pool=0), "too small"),
        (lambda: cnn.make(SPEC, **SMALL, conv="grouped"), "conv 'grouped' is none"),
        (lambda: cnn.make(SPEC, **SMALL, conv_activation="relu6"), "'relu6' is none"),
        (lambda: cnn.make(SPEC, **SMALL, input_norm="zscore"), "'zscore' is none"),
        (lambda: cnn.make(SPEC, **SMALL, input_decay=1.0), "input_decay 1.0: must"),
        (lambda: resnet18.make(tiny.SPEC), "resnet18 needs images"),
        (lambda: resnet18.make(RES_SPEC, width=0), "width 0"),
        (lambda: resnet18.make(RES_SPEC, norm="group"), "norm 'group' is none"),
        (lambda: resnet18.make(RES_SPEC, input_norm="zscore"), "'zscore' is none"),
        (
            lambda: resnet18.make(RES_SPEC._replace(batch_size=1)),
            "batches of 2 examples or more",
        ),
    ],
)
def test_settings_that_do_not_work(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "layer"}, {"norm": "batch"}, {"activation": "adalin_relu"},
        {"spare_units": 1, "conv": "direct"}, {"input_norm": "ema", "norm": "online"},
    ],
)  # fmt: skip
def test_cnn_keeps_the_contract_with(options):
    spec = testing.tiny_stream().spec._replace(input_shape=(6, 6))
    testing.check_network(cnn, spec, channels=(4,), kernels=(3,), dense=(5,), **options)


# ---- a method on them


@pytest.mark.parametrize("kind", ["cnn", "resnet18"])
def test_continual_backprop_replaces_units(kind):
    spec = RES_SPEC if kind == "resnet18" else SPEC
    net = (
        resnet18.make(spec, width=2) if kind == "resnet18" else cnn.make(spec, **SMALL)
    )
    hyper = continual_backprop.Hyper(
        step_size=0.01, replacement_rate=0.1, maturity_threshold=3,
        variant="nature", count="total", max_replaced=2,
    )  # fmt: skip
    method = continual_backprop.make(net, spec, hyper)
    x: Any = np.stack([images(spec, seed=i) for i in range(20)])
    batches = tiny.batches(20)._replace(x=x)

    def step(learner, at):
        i, batch = at
        learner, signals = method.step(tiny.step_key(i), tiny.clock(i), batch, learner)
        age = learner.extra["transform_0"].age
        return learner, (signals.loss, jnp.sum(age == 0.0))

    start = method.init(tiny.KEY)
    learner, (losses, replaced) = tiny.quick_jit(
        lambda s: jax.lax.scan(step, s, (jnp.arange(20), batches))
    )(start)
    assert jnp.isfinite(losses).all() and int(replaced.sum()) > 5
    for leaf in jax.tree.leaves(learner.net):
        assert jnp.isfinite(leaf).all()
    # What was replaced last is still near a fresh draw.
    newest = units.split(net.units, learner.extra["transform_0"].age)
    fresh = net.init(jax.random.key(3)).params
    for unit in net.units:
        mask = newest[unit.name] == 0.0
        for name in unit.incoming:
            kernel = jnp.abs(learner.net.params[name]["kernel"])
            largest = 2.0 * jnp.abs(fresh[name]["kernel"]).max()
            assert jnp.where(mask, kernel, 0.0).max() <= largest
