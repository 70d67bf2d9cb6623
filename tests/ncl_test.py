"""Natural continual learning: its oracle across tasks, its factors, and its limits."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import testing
from cl_bench.losses import squared_error
from cl_bench.methods import _kronecker, backprop, ncl
from cl_bench.networks import cnn, mlp
from tests import tiny
from tests.consolidation_setting import (
    NET,
    SPEC,
    close,
    example_batch,
    labels_drawn,
    made,
    moved,
    oracle_run,
    run,
    task_batches,
    train_of,
)
from tests.reference import ncl as oracle

SETTINGS = {"strength": 0.7, "data_size": 50.0, "damping": 0.02}


@pytest.mark.parametrize(
    ("optimizer", "precondition", "estimator"),
    [
        ("momentum", True, "exact"),
        ("sgd", True, "empirical"),
        ("momentum", False, "predicted"),
    ],
)
def test_ncl(optimizer, precondition, estimator):
    options = {**SETTINGS, "precondition": precondition}
    first, before, after = run(ncl, optimizer=optimizer, estimator=estimator, **options)
    known = oracle.prior(first.net.params, SETTINGS["data_size"])

    def step(params, grads, opt, optimizer):
        return oracle.step(params, grads, opt, known, optimizer=optimizer, **options)

    def end_task(params, task):
        nonlocal known
        found = oracle.factored_fisher(params, task_batches(task), estimator)
        known = oracle.end_task(params, found, known)

    expected = oracle_run(
        optimizer, first, step, end_task, keeps_moments=not precondition
    )
    close(before.net.params, expected)
    precision = tiny.at(ncl.of(after).precision, -1)
    for name, (a, g) in known.factors.items():
        np.testing.assert_allclose(precision.inputs[name], a, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(precision.outputs[name], g, rtol=1e-4, atol=1e-6)
    plain = run(backprop, optimizer=optimizer)[1].net.params
    assert moved(tiny.at(plain, -1), tiny.at(before.net.params, -1)) > 1e-3


def test_in_the_first_task_it_is_the_optimiser_with_weight_decay():
    """Lambda = I / n around 0, and no damping: g + strength / n theta."""
    found = run(ncl, strength=5.0, data_size=50.0, damping=0.0, optimizer="sgd")[1]
    settings = {"weight_decay": 0.1, "coupled_decay": True, "optimizer": "sgd"}
    plain = run(backprop, **settings)[1]
    close(tiny.at(found.net.params, 0), tiny.at(plain.net.params, 0))


# ---- factors


@pytest.mark.parametrize("estimator", ncl.ESTIMATORS)
def test_factors_against_single_examples(estimator):
    estimate = _kronecker.fisher(NET, SPEC, estimator, None)
    batches = example_batch(SPEC)
    state = tiny.quick_jit(NET.init)(jax.random.key(5))
    found = tiny.quick_jit(lambda: estimate(tiny.KEY, train_of(batches), state))()
    rows = [(batches.x[i], batches.y[i], batches.classes[i]) for i in range(3)]
    draws = None
    if estimator == "sampled":
        draws = labels_drawn(NET, state, batches)
    expected = oracle.factored_fisher(state.params, rows, estimator, draws)
    for name, (a, g) in expected.items():
        np.testing.assert_allclose(found.inputs[name], a, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.outputs[name], g, rtol=1e-5, atol=1e-7)


def test_a_sum_has_the_least_trace_of_its_kind():
    """tr(A_1 + A_2 / pi) tr(G_1 + pi G_2) over pi; and 0 is added exactly."""
    rng = np.random.default_rng(0)

    def positive(n):
        root = rng.normal(size=(n, n))
        return (root @ root.T).astype(np.float32)

    a1, g1, a2, g2 = positive(4), positive(3), positive(4), positive(3)
    first, second = (
        _kronecker.Factors({"h": jnp.asarray(a)}, {"h": jnp.asarray(g)})
        for a, g in ((a1, g1), (a2, g2))
    )
    found = _kronecker.add(first, second)
    least = np.trace(found.inputs["h"]) * np.trace(found.outputs["h"])
    pis = np.geomspace(1e-3, 1e3, 2001)
    traces = np.trace(a1) + np.trace(a2) / pis, np.trace(g1) + pis * np.trace(g2)
    np.testing.assert_allclose(least, np.min(traces[0] * traces[1]), rtol=1e-4)
    nothing = jax.tree.map(jnp.zeros_like, second)
    chex.assert_trees_all_equal(_kronecker.add(first, nothing), first)


def test_weights_that_are_not_in_use_stay_out_of_it():
    net = testing.tiny_network(SPEC, constrained=True)
    method, train = made(ncl, net, **SETTINGS), train_of(example_batch(SPEC))

    @tiny.quick_jit
    def two_tasks():
        learner = method.end_task(tiny.KEY, tiny.clock(0), train, method.init(tiny.KEY))
        return method.step(tiny.KEY, tiny.clock(1), train(0), learner)[1].updates

    state, updates = net.init(tiny.KEY), two_tasks()
    for name, allowed in state.edges.items():
        assert not np.any(updates[name]["kernel"][~allowed])
        assert np.any(updates[name]["kernel"][allowed])
    for name, alive in state.alive.items():
        assert not np.any(updates[name]["kernel"][:, ~alive])
        assert not np.any(updates[name]["bias"][~alive])


# ---- limits


def test_nothing_of_it_is_fine_tuning():
    plain = run(backprop, optimizer="momentum")[1].net.params
    options = {"optimizer": "momentum", "strength": 0.0, "precondition": False}
    chex.assert_trees_all_equal(run(ncl, **options)[1].net.params, plain)


def test_a_weak_prior_leaves_what_past_inputs_gave_as_it_was():
    """The journey alone: outputs of task 1's inputs through two more tasks."""
    drifts = []
    for data_size in (1.0, 1e2, 1e4):
        options = {"strength": 0.0, "data_size": data_size, "damping": 0.0}
        _, before, after = run(ncl, optimizer="sgd", **options)
        then, now = tiny.at(after.net, 0), tiny.at(before.net, -1)
        x = np.concatenate([x for x, *_ in task_batches(0)])
        outputs = [
            NET.apply(state, x, train=False, key=None)[0] for state in (then, now)
        ]
        drifts.append(float(jnp.abs(outputs[0] - outputs[1]).mean()))
    assert drifts[0] > 3 * drifts[1] > 9 * drifts[2], drifts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "batched"}, "none of exact, sampled, empirical, predicted"),
        ({"fisher_examples": 0}, "fisher_examples=0: take 1 or more"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        made(ncl, **settings)


@pytest.mark.parametrize(
    ("spec", "net", "message"),
    [
        (SPEC._replace(loss=squared_error), NET, "the stream is a regression"),
        (
            SPEC,
            mlp.make(SPEC, widths=(5,), norm="layer"),
            "take the network mlp without",
        ),
        (SPEC, mlp.make(SPEC, widths=(5,), activation="crelu"), "doubled features"),
        (SPEC, mlp.make(SPEC, widths=(5,), activation="prelu"), "or the method ewc"),
    ],
)
def test_streams_and_networks_that_it_cannot_serve(spec, net, message):
    with pytest.raises(ValueError, match=message):
        made(ncl, net, spec)


def test_convolutions_are_refused():
    spec = SPEC._replace(input_shape=(6, 6, 1))
    net = cnn.make(spec, channels=(3,), kernels=(3,), dense=(4,))
    with pytest.raises(ValueError, match="dense layers and nothing else"):
        made(ncl, net, spec)
