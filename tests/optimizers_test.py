"""What `reset` of an optimiser touches; the updates are in exactness_baselines_test."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cl_bench import optimizers
from tests import tiny

PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": jnp.ones((2, 2))}
GRADS = {"a": jnp.array([0.5, 0.1, -0.2]), "b": jnp.full((2, 2), 0.3)}
MASK = {"a": jnp.array([True, False, False]), "b": jnp.zeros((2, 2), bool)}


def make(name, **settings):
    return optimizers.make(optimizers.OptimHyper(optimizer=name, **settings))


def after(optim, steps=3):
    state = optim.init(PARAMS)
    step = tiny.quick_jit(lambda state: optim.update(GRADS, state, PARAMS)[1])
    for _ in range(steps):
        state = step(state)
    return state


def moments(state):
    if isinstance(state, optimizers.AgedAdamState):
        return [state.mu, state.nu]
    leaves = jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "_fields"))
    found = [(s.mu, s.nu) for s in leaves if hasattr(s, "mu")]
    found += [(s.trace,) for s in leaves if isinstance(s, optax.TraceState)]
    return [tree for trees in found for tree in trees]


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_reset_zeroes_the_masked_moments_and_nothing_else(name):
    optim = make(name)
    state = after(optim)
    chex.assert_trees_all_equal(optim.reset(state, MASK, "none"), state)
    reset = optim.reset(state, MASK, "moments")
    chex.assert_trees_all_equal_structs(reset, state)
    for new, old in zip(moments(reset), moments(state), strict=True):
        expected = jax.tree.map(lambda o, m: jnp.where(m, 0.0, o), old, MASK)
        chex.assert_trees_all_equal(new, expected)
        assert (new["a"][1:] != 0).all()
    wide = {"sgd": 0, "momentum": 1}.get(name, 2)
    assert len(moments(state)) == wide


@pytest.mark.parametrize("name", optimizers.AGED)
def test_moments_and_count_resets_ages(name):
    optim = make(name)
    state = after(optim)
    np.testing.assert_array_equal(optim.reset(state, MASK, "moments").count["a"], 3.0)
    reset = optim.reset(state, MASK, "moments+count")
    np.testing.assert_array_equal(reset.count["a"], [0.0, 3.0, 3.0])
    # A parameter whose age is reset moves as if it were new.
    updates, _ = optim.update(GRADS, reset, PARAMS)
    first, _ = optim.update(GRADS, optim.init(PARAMS), PARAMS)
    assert updates["a"][0] == first["a"][0]
    assert updates["a"][1] != first["a"][1] or name == "aged_adam"


def test_the_first_step_of_adam_is_one_step_size():
    for name in ("adam", "adamw", "aged_adam"):
        optim = make(name, step_size=0.1)
        updates, _ = optim.update(GRADS, optim.init(PARAMS), PARAMS)
        chex.assert_trees_all_close(
            updates, jax.tree.map(lambda g: -0.1 * jnp.sign(g), GRADS), rtol=1e-4
        )


def test_the_released_adam_warms_up():
    # (1 - b2) m / sqrt(v) with m = (1 - b1) g and v = (1 - b2) g^2
    optim = make("adam_gnt", step_size=1.0)
    updates, _ = optim.update(GRADS, optim.init(PARAMS), PARAMS)
    size = 0.1 * np.sqrt(0.001)
    expected = jax.tree.map(lambda g: -size * jnp.sign(g), GRADS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-3)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_settings_are_traced(name):
    @tiny.quick_jit
    @jax.vmap
    def size(step_size):
        optim = make(name, step_size=step_size)
        return optim.update(GRADS, optim.init(PARAMS), PARAMS)[0]["a"][0]

    sizes = size(jnp.array([0.0, 0.1, 0.2]))
    np.testing.assert_allclose(sizes / sizes[1], [0.0, 1.0, 2.0], rtol=1e-5)


def test_unknown_optimisers():
    with pytest.raises(ValueError, match="optimizer 'adagrad' is none of"):
        make("adagrad")
