"""Resets by score and of silent units: neutral settings, averages, refusals, moments."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import _unit_resets, continual_backprop, redo, snr
from cl_bench.networks import cnn, mlp
from tests import tiny
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle
from tests.reference import redo as oracle_redo

STEPS, PERIOD, DECAY = 50, 5, 0.8
NET = mlp.make(tiny.SPEC, widths=(12, 10))
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)


def test_nobody_is_below_a_negative_threshold_not_even_in_a_layer_of_zeros():
    state = NET.init(tiny.KEY)
    scores = {"h1": jnp.zeros(12), "h2": jnp.arange(10.0)}
    low = _unit_resets.low_scores(NET, state, scores, -1.0)
    assert not any(mask.any() for mask in low.values())
    low = _unit_resets.low_scores(NET, state, scores, 0.0)
    assert low["h1"].all() and low["h2"].sum() == 1


def averaged(scores, acts):
    """The moving average of mean |h|, as one example whose activations it is."""
    now = {name: np.abs(acts[name]).mean(axis=0) for name in scores}
    return {n: DECAY * scores[n] + (1 - DECAY) * now[n] for n in scores}


def test_redo_by_average_scores():
    hyper = redo.Hyper(
        step_size=0.01, threshold=0.5, period=PERIOD, decay=DECAY, statistics="average"
    )
    data = tiny.batches(STEPS)
    first, learners, _ = tiny.run(redo.make(NET, tiny.SPEC, hyper), data)
    params, state = oracle_mlp.cast(first.net.params), oracle_redo.init()
    scores = {"h1": np.zeros(12), "h2": np.zeros(10)}
    rows, total = [], 0
    for i in range(STEPS):
        _, acts, grads = oracle_mlp.loss_and_grads(params, data.x[i], data.y[i])
        scores = averaged(scores, acts)
        params, _, state, masks = oracle_redo.step(
            params, grads, oracle.init_sgd(params), state,
            {name: scores[name][None] for name in scores},
            oracle_mlp.cast(tiny.at(learners, i).net.params),  # what has been drawn
            optimizer=partial(oracle.sgd, step_size=0.01), period=PERIOD, tau=0.5,
        )  # fmt: skip
        # Who starts anew has the mean of its layer, and is not low at once again.
        scores = {n: np.where(masks[n], s.mean(), s) for n, s in scores.items()}
        total += sum(mask.sum() for mask in masks.values())
        rows.append(params)
    close(
        learners.net.params,
        jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows),
    )
    found = tiny.at(learners.extra["transform_0"]["scores"], -1)
    close(found, jax.tree.map(np.float32, scores))
    assert 0 < total < STEPS


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("activation", ["crelu", "fourier"])
def test_snr_refuses_units_of_two_features(network, activation):
    spec = tiny.SPEC
    if network == "cnn":
        spec = spec._replace(input_shape=(6, 6))
        net = cnn.make(spec, channels=(3,), kernels=(3,), activation=activation)
    else:
        net = mlp.make(spec, widths=(5,), activation=activation)
    with pytest.raises(ValueError, match="two features .* 'relu', or redo"):
        snr.make(net, spec, snr.Hyper())


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"optimizer": "momentum"}, True),  # as the released code
        ({"optimizer": "momentum", "moment_reset": "moments"}, False),
        ({"optimizer": "momentum", "variant": "nature"}, False),
        ({"optimizer": "adam"}, False),
    ],
)
def test_what_becomes_of_the_moments_of_a_replaced_unit(settings, kept):
    hyper = continual_backprop.Hyper(
        replacement_rate=0.1, maturity_threshold=3, **settings
    )
    method = continual_backprop.make(NET, tiny.SPEC, hyper)
    _, learners, _ = tiny.run(method, tiny.batches(STEPS))
    new = learners.extra["transform_0"].age[:, :12] == 0.0  # [steps, U] of h1
    assert new.any()
    moments = jax.tree.leaves(learners.opt)
    of_h1 = [m for m in moments if m.shape[1:] == (tiny.INPUTS, 12)]
    assert of_h1
    for leaf in of_h1:
        size = np.abs(leaf).sum(axis=1)[new]
        assert (size > 0).any() if kept else (size == 0).all()
