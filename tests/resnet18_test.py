"""ResNet-18: against numpy, its size, and resets of inner and of stream units."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import units
from cl_bench.methods import _surgery
from cl_bench.networks import resnet18
from tests import tiny
from tests.reference import conv as oracle

close = chex.assert_trees_all_close
SPEC = tiny.SPEC._replace(input_shape=(5, 5, 2))
X = np.random.default_rng(0).normal(size=(4, 5, 5, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def narrow():
    """A residual network of 2 to 16 channels whose norms are not at their start."""
    net = resnet18.make(SPEC, width=2)
    state = net.init(tiny.KEY)
    keys = iter(jax.random.split(tiny.KEY, 200))
    moved = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape), state.params
    )
    return net, state._replace(params=moved)


def test_resnet18_as_numpy(narrow):
    net, state = narrow
    logits, acts, stats = tiny.quick_jit(
        lambda s: net.apply(s, X, train=True, key=None)
    )(state)
    expected = oracle.resnet18_forward(state.params, X)
    found = {**{s: acts[s] for s in ("s1", "s2", "s3", "s4")}, "logits": logits}
    close(found, jax.tree.map(np.float32, expected), rtol=1e-3, atol=1e-4)
    z = oracle.conv(X, state.params["stem"]["kernel"], 1, 1)
    mean = (z + np.asarray(state.params["stem"]["bias"])).mean((0, 1, 2))
    close(stats["stem"]["mean"], np.float32(0.1 * mean), rtol=1e-4, atol=1e-6)


def test_parameters_of_resnet18():
    """11,220,132 of torchvision's CIFAR-100 form, and a bias a convolution channel."""
    spec = SPEC._replace(input_shape=(32, 32, 3), num_outputs=100)
    state = jax.eval_shape(resnet18.make(spec).init, tiny.KEY)
    channels = 64 * 5 + (128 + 256 + 512) * 5
    total = sum(p.size for p in jax.tree.leaves(state.params))
    assert total == 11_220_132 + channels == 11_224_932
    assert len(state.params) == 21 and len(state.stats) == 20


def test_an_unread_unit_has_no_influence_whatever_writes_it(narrow):
    net, state = narrow
    forward = tiny.quick_jit(lambda s: net.apply(s, X, train=True, key=None)[0])
    redrawn = net.init(jax.random.key(9)).params
    for unit in net.units:
        mask = jnp.arange(unit.size) == 1
        cut = units.set_outgoing(state.params, unit, mask, 0.0)
        kernels = {name: redrawn[name]["kernel"] for name in unit.incoming}
        other = units.set_incoming(cut, unit, mask, kernels, 0.3)
        logits = forward(state._replace(params=cut))
        close(logits, forward(state._replace(params=other)), atol=1e-5)
        seen = units.set_incoming(state.params, unit, mask, kernels, 0.3)
        moved = forward(state._replace(params=seen)) - forward(state)
        assert jnp.abs(moved).max() > 1e-4, unit.name  # it had some before


def test_a_reset_unit_starts_with_neutral_norm_and_statistics(narrow):
    net, state = narrow
    stats = jax.tree.map(lambda s: s + 0.5, state.stats)
    state = state._replace(stats=stats)
    masks = {u.name: jnp.zeros(u.size, bool) for u in net.units}
    masks["s2"] = masks["s2"].at[1].set(True)
    new = _surgery.reset_units(jax.random.key(1), net, state, masks)
    for name in ("s2skip", "s2b1c2", "s2b2c2"):
        leaf = jax.tree.map(lambda p: float(p[..., 1].max()), new.params[name])
        assert leaf["bias"] == 0.0 and leaf["scale"] == 1.0 and leaf["shift"] == 0.0
        assert new.stats[name]["mean"][1] == 0.0 and new.stats[name]["var"][1] == 1.0
        close(new.stats[name]["var"][2:], stats[name]["var"][2:])
        drawn, old = new.params[name]["kernel"], state.params[name]["kernel"]
        assert (drawn[..., 1] != old[..., 1]).all()
    for name in ("s2b2c1", "s3skip", "s3b1c1"):
        assert (new.params[name]["kernel"][:, :, 1] == 0.0).all()
        assert (new.params[name]["kernel"][:, :, 0] != 0.0).all()
