"""Gradient optimisers, L2 and the four shrink-and-perturbs against the numpy oracles."""

from functools import partial

import chex
import jax
import numpy as np
import pytest

from cl_bench import components, noise
from cl_bench.methods import backprop, boundary_shrink_perturb, l2, shrink_perturb
from cl_bench.networks import mlp
from tests import tiny
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle
from tests.reference import shrink_perturb as oracle_noise

STEPS = 60
NET = mlp.make(tiny.SPEC, widths=(8, 6))
ADAM = {"b1": 0.8, "b2": 0.99, "eps": 1e-6}
HYPER = {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "step_size": 0.003}
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)

OPTIMIZERS = {
    "sgd": (oracle.init_sgd, oracle.sgd, {}),
    "momentum": (oracle.init_momentum, oracle.momentum, {"mu": 0.8}),
    "adam": (oracle.init_adam, oracle.adam, ADAM),
    "adamw": (oracle.init_adam, oracle.adamw, {"weight_decay": 0.1, **ADAM}),
    "aged_adam": (oracle.init_adam_per_element, oracle.adam, ADAM),
    "adam_gnt": (oracle.init_adam_per_element, oracle.adam_gnt, ADAM),
}


def optimizer_of(name):
    init, update, settings = OPTIMIZERS[name]
    return init, partial(update, step_size=HYPER["step_size"], **settings)


def compare(method, data, init, move):
    """`move(i, params, grads, state)` is the oracle's step; compares every step."""
    first, learners, signals = tiny.run(method, data)
    params = oracle_mlp.cast(first.net.params)
    state, rows = init(params), []
    for i in range(len(data.y)):
        loss, _, grads = oracle_mlp.loss_and_grads(
            params, data.x[i], data.y[i], example_weight=data.weight[i]
        )
        params, state = move(i, params, grads, state)
        rows.append((params, loss))
    expected = jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows)
    close((learners.net.params, signals.loss), expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers(name):
    hyper = backprop.Hyper(**HYPER, optimizer=name, momentum=0.8, weight_decay=0.1)
    init, update = optimizer_of(name)
    data = tiny.batches(STEPS)
    data.weight[:, 1] = 0.0  # padding
    data.weight[:, 2] = 2.0
    compare(
        backprop.make(NET, tiny.SPEC, hyper), data, init, lambda i, *args: update(*args)
    )


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_l2_decays_biases_too_and_through_the_moments(name):
    hyper = l2.Hyper(**HYPER, optimizer=name, strength=0.1)
    init, update = optimizer_of(name)

    def move(i, params, grads, state):
        return update(params, oracle.coupled_l2(params, grads, 0.1), state)

    compare(l2.make(NET, tiny.SPEC, hyper), tiny.batches(STEPS), init, move)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_coupled_decay_is_l2_under_any_method(name):
    decay = {"coupled_decay": True, "weight_decay": 0.1, "momentum": 0.8}
    hyper = backprop.Hyper(**HYPER, optimizer=name, **decay)
    init, update = optimizer_of(name)

    def move(i, params, grads, state):
        return update(params, oracle.coupled_l2(params, grads, 0.1), state)

    compare(backprop.make(NET, tiny.SPEC, hyper), tiny.batches(STEPS), init, move)


def test_coupled_decay_and_adamw_exclude_each_other():
    hyper = backprop.Hyper(optimizer="adamw", coupled_decay=True)
    with pytest.raises(ValueError, match="goes with 'adam'"):
        backprop.make(NET, tiny.SPEC, hyper)


@pytest.mark.parametrize("method", ["backprop", "hare_tortoise"])
def test_a_weight_decay_that_nothing_reads_is_refused(method):
    stream = components.resolve("stream", {"name": "permuted", "dataset": "digits"})
    network = components.resolve("network", {"name": "mlp", "widths": (5,)})
    made = components.make(stream, network, [], method)
    settings = {"optimizer": "momentum", "weight_decay": 5e-4}
    given = components.resolve("method", {"name": method, **settings})
    with pytest.raises(
        ValueError, match=r"'momentum' does not read it.*weight_decay=0"
    ):
        components.make_method(made, given)
    for works in (
        {"coupled_decay": True},
        {"weight_decay": 0.0},
        {"optimizer": "adamw"},
    ):
        given = components.resolve("method", {"name": method, **settings, **works})
        components.make_method(made, given)


def drawn(make, at):
    """What a method draws from stream `at` of its key, stacked over the steps."""
    counts = np.arange(STEPS, dtype=np.int32)
    draw = jax.vmap(lambda i: make(jax.random.fold_in(tiny.step_key(i), at)))
    values = tiny.quick_jit(draw)(counts)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), values)


def drawn_noise(kind, at):
    shapes = NET.init(tiny.KEY).params
    return drawn(lambda key: noise.normal_like(key, shapes, kind), at)


def shrink_method(**settings):
    hyper = shrink_perturb.Hyper(**HYPER, shrink=0.1, noise_std=0.01, **settings)
    return shrink_perturb.make(NET, tiny.SPEC, hyper)


@pytest.mark.parametrize(
    ("optimizer", "kind"), [("sgd", "exact"), ("sgd", "pooled"), ("adam", "exact")]
)
def test_dohare_every_step(optimizer, kind):
    init, update = optimizer_of(optimizer)
    xi = drawn_noise(kind, 2)

    def move(i, params, grads, state):
        return oracle_noise.dohare(
            params, grads, state, tiny.at(xi, i),
            optimizer=update, l2=0.1, noise_std=0.01,
        )  # fmt: skip

    method = shrink_method(optimizer=optimizer, noise=kind)
    compare(method, tiny.batches(STEPS), init, move)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_upgd_has_its_noise_in_the_gradient(kind):
    xi = drawn_noise(kind, 1)
    settings = {"step_size": HYPER["step_size"], "l2": 0.1, "noise_std": 0.01}

    def move(i, params, grads, state):
        return oracle_noise.upgd(params, grads, tiny.at(xi, i), **settings), state

    method = shrink_method(variant="upgd", noise=kind)
    compare(method, tiny.batches(STEPS), oracle.init_sgd, move)


def test_kumar_moves_towards_fresh_networks():
    fresh = drawn(lambda key: NET.init(key).params, 2)
    init, update = optimizer_of("sgd")

    def move(i, params, grads, state):
        params, state = update(params, grads, state)
        new = tiny.at(fresh, i)
        return oracle_noise.kumar(params, new, shrink=0.1, noise_std=0.01), state

    compare(shrink_method(variant="kumar"), tiny.batches(STEPS), init, move)


def test_ash_and_adams_at_boundaries_but_the_first():
    hyper = boundary_shrink_perturb.Hyper(keep=0.6, noise_std=0.01, optimizer="adam")
    method = boundary_shrink_perturb.make(NET, tiny.SPEC, hyper)
    learner = method.init(tiny.KEY)
    learner, _ = tiny.quick_jit(method.step)(
        tiny.step_key(0), tiny.clock(0), tiny.at(tiny.batches(1), 0), learner
    )
    key = jax.random.fold_in(tiny.KEY, 3)
    first = method.start_task(key, tiny.clock(0), None, learner)
    chex.assert_trees_all_equal(first, learner)
    later = method.start_task(key, tiny.clock(100), None, learner)
    xi = noise.normal_like(key, learner.net.params, "exact")
    before = oracle_mlp.cast(learner.net.params)
    expected = oracle_noise.ash_adams(before, xi, shrink=0.6, noise_std=0.01)
    close(later.net.params, jax.tree.map(np.float32, expected))
    chex.assert_trees_all_equal(later.opt, learner.opt)


def test_no_noise_and_no_shrinking_is_backprop():
    data = tiny.batches(5)
    plain = backprop.make(NET, tiny.SPEC, backprop.Hyper(**HYPER))
    expected = tiny.run(plain, data)[1].net.params
    for variant in shrink_perturb.VARIANTS:
        neutral = shrink_perturb.Hyper(
            **HYPER, **shrink_perturb.NEUTRAL, variant=variant
        )
        made = shrink_perturb.make(NET, tiny.SPEC, neutral)
        chex.assert_trees_all_close(
            tiny.run(made, data)[1].net.params, expected, rtol=1e-6, atol=1e-7
        )
    hyper = boundary_shrink_perturb.Hyper(**boundary_shrink_perturb.NEUTRAL)
    made = boundary_shrink_perturb.make(NET, tiny.SPEC, hyper)
    learner = made.init(tiny.KEY)
    later = made.start_task(tiny.KEY, tiny.clock(100), None, learner)
    chex.assert_trees_all_equal(later, learner)
