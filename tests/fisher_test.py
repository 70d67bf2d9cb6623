"""The diagonal Fisher information, against gradients of single examples."""

import math
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import testing
from cl_bench.methods import _anchors, _example_gradients, _fisher, l2_previous
from cl_bench.networks import cnn, mlp
from tests import tiny
from tests.consolidation_setting import (
    NET,
    SPEC,
    close,
    data,
    example_batch,
    labels_drawn,
    made,
    moved,
    train_of,
)
from tests.reference import ewc as oracle


def fisher_of(net, spec, estimator, batches, key=tiny.KEY, examples=None):
    state = start_of(net)
    return state, fisher_program(net, spec, estimator, examples)(key, batches, state)


@cache
def start_of(net):
    return tiny.quick_jit(net.init)(jax.random.key(5))


@cache
def fisher_program(net, spec, estimator, examples):
    estimate = _fisher.make(net, spec, estimator, examples)
    return tiny.quick_jit(
        lambda key, batches, state: estimate(key, train_of(batches), state)
    )


@pytest.mark.parametrize("estimator", _fisher.ESTIMATORS)
def test_fisher_against_the_gradients_of_single_examples(estimator):
    batches = example_batch(SPEC)
    state, found = fisher_of(NET, SPEC, estimator, batches)
    draws = None
    if estimator == "sampled":
        draws = labels_drawn(NET, state, batches)
    rows = [(batches.x[i], batches.y[i], batches.classes[i]) for i in range(3)]
    expected = oracle.fisher(state.params, rows, estimator, draws)
    close(found, jax.tree.map(np.float32, expected), atol=1e-8)


def test_sampled_fishers_average_to_the_exact_one():
    batches = example_batch(SPEC)
    state, exact = fisher_of(NET, SPEC, "exact", batches)
    estimate = _fisher.make(NET, SPEC, "sampled", None)
    draw = jax.vmap(lambda key: estimate(key, train_of(batches), state))
    many = tiny.quick_jit(draw)(jax.random.split(tiny.KEY, 800))
    for one, draws in zip(jax.tree.leaves(exact), jax.tree.leaves(many), strict=True):
        error = np.std(draws, axis=0) / np.sqrt(len(draws))
        assert np.all(np.abs(np.mean(draws, axis=0) - one) <= 5 * error + 1e-7)


def test_fisher_of_the_first_examples_only():
    batches = example_batch(SPEC)
    _, few = fisher_of(NET, SPEC, "exact", batches, examples=6)
    weight = np.repeat([1.0, 1.0, 0.0], 4).reshape(3, 4).astype(np.float32)
    weight[1, 2:] = 0
    _, padded = fisher_of(NET, SPEC, "exact", batches._replace(weight=weight))
    _, every = fisher_of(NET, SPEC, "exact", batches)
    close(few, padded)
    assert moved(few, every) > 1e-4


def network(module, shape=(tiny.INPUTS,), **options):
    spec = SPEC._replace(input_shape=shape)
    return module.make(spec, **options), spec


@pytest.mark.parametrize(
    ("dense", "parts"),
    [
        (True, network(mlp, widths=())),
        (True, network(mlp, widths=(5, 4), spare_units=2, activation="tanh")),
        (False, network(mlp, widths=(5,), activation="crelu")),
        (False, network(mlp, widths=(5,), activation="prelu")),
        (False, network(mlp, widths=(5,), norm="layer")),
        (False, network(cnn, (6, 6, 1), channels=(3,), kernels=(3,), dense=(4,))),
    ],
    ids=[
        "linear",
        "dense",
        "two features a unit",
        "prelu",
        "layer norm",
        "convolution",
    ],
)
def test_which_networks_need_no_gradient_of_an_example(dense, parts):
    assert _example_gradients.is_dense(*parts) == dense


def shapes_within(net, spec, examples):
    """Of every array in the program of the exact Fisher, at any depth."""
    batches = example_batch(spec, size=examples)
    estimate = _fisher.make(net, spec._replace(batch_size=examples), "exact", None)
    traced = jax.make_jaxpr(lambda state: estimate(tiny.KEY, train_of(batches), state))
    found = re.findall(r"f32\[([\d,]+)\]", str(traced(start_of(net))))
    return {tuple(int(n) for n in shape.split(",")) for shape in found}


def test_no_gradient_of_a_single_example_is_formed_for_dense_layers():
    examples, inputs, width = 64, 30, 20
    net, spec = network(mlp, (inputs,), widths=(width,))
    seen = shapes_within(net, spec, examples)
    assert max(math.prod(shape) for shape in seen) < examples * inputs * width
    assert (examples, width) in seen
    # Where they must be formed, this test sees them, so many at a time.
    net, spec = network(mlp, (inputs,), widths=(width,), norm="layer")
    seen = shapes_within(net, spec, examples)
    assert (_example_gradients.CHUNK, inputs, width) in seen


@pytest.mark.parametrize(
    ("net", "spec"),
    [
        network(mlp, widths=()),
        network(mlp, widths=(5,), norm="layer"),
        network(cnn, (6, 6, 1), channels=(3,), kernels=(3,), dense=(4,)),
    ],
    ids=["linear", "layer norm", "convolution"],
)
def test_fisher_of_any_network_by_jacobians(net, spec):
    batches = example_batch(spec)
    state, found = fisher_of(net, spec, "exact", batches)
    x, classes = (np.concatenate(leaf) for leaf in (batches.x, batches.classes))

    def log_p(params):
        logits = net.apply(state._replace(params=params), x, train=False, key=None)[0]
        return jax.nn.log_softmax(jnp.where(classes, logits, -1e9))

    p = jnp.exp(log_p(state.params))
    jacobian = tiny.quick_jit(jax.jacrev(log_p))(state.params)
    expected = jax.tree.map(
        lambda j: jnp.einsum("bk,bk...->...", p, jnp.square(j)) / len(x), jacobian
    )
    close(found, expected, rtol=1e-4, atol=1e-7)


def test_nothing_is_remembered_of_what_is_not_in_use():
    net = testing.tiny_network(SPEC, constrained=True)
    state, found = fisher_of(net, SPEC, "exact", example_batch(SPEC))
    for name, allowed in state.edges.items():
        assert not np.any(found[name]["kernel"][~allowed])
    for name, alive in state.alive.items():
        assert not np.any(found[name]["kernel"][:, ~alive])
        assert not np.any(found[name]["bias"][~alive])
    method, train = made(l2_previous, net), train_of(tiny.at(data(), 0))
    end = tiny.quick_jit(
        lambda: method.end_task(tiny.KEY, tiny.clock(9), train, method.init(tiny.KEY))
    )
    ones = _anchors.of(end()).weight
    assert ones["h1"]["bias"].tolist() == state.alive["h1"].astype(float).tolist()
    assert ones["h2"]["kernel"][~state.alive["h1"]].max() == 0
