"""The numpy oracles of unit resets against facts worked out by hand."""

from functools import partial
from typing import Any

import numpy as np

from tests.oracle_setting import (
    adam,
    close,
    network,
    sgd,
    still,
    zeros,
)
from tests.reference import (
    grama,
    optimizers,
    redo,
    resets,
    snr,
)
from tests.reference.mlp import loss_and_grads


def test_reset_units_touches_what_it_must_and_no_more():
    params, fresh = network(1, norm=True), network(2)
    masks = {"h1": np.array([0, 1, 0, 0], bool), "h2": np.array([1, 0], bool)}
    new = resets.reset_units(params, masks, fresh)
    close(new["h1"]["kernel"][:, 1], fresh["h1"]["kernel"][:, 1])
    close(new["h1"]["kernel"][:, [0, 2, 3]], params["h1"]["kernel"][:, [0, 2, 3]])
    assert new["h1"]["bias"][1] == 0 and new["h1"]["scale"][1] == 1
    assert new["h1"]["shift"][1] == 0 and new["h1"]["shift"][0] != 0
    # h1's unit 1 reaches only the unit of h2 that is itself new.
    close(new["h2"]["kernel"][1], np.array([fresh["h2"]["kernel"][1, 0], 0.0]))
    assert new["h2"]["bias"][1] == params["h2"]["bias"][1]
    close(new["head"]["kernel"][0], np.zeros(2))
    close(new["head"]["kernel"][1], params["head"]["kernel"][1])
    close(new["head"]["bias"], params["head"]["bias"])


def redo_setting():
    params = network(1, norm=True)
    x = np.random.default_rng(5).normal(size=(6, 3))
    plain = {n: {k: m[k] for k in ("kernel", "bias")} for n, m in params.items()}
    _, acts, grads = loss_and_grads(plain, x, np.zeros(6, int))
    for name in ("h1", "h2"):
        grads[name]["scale"] = np.ones_like(params[name]["scale"])
        grads[name]["shift"] = np.ones_like(params[name]["shift"])
    return params, grads, acts


def test_redo_resets_dormant_units_and_their_moments_when_due():
    params, grads, acts = redo_setting()
    acts = acts | {
        "h1": np.array([[0.1, 8.0, 0.3, 2.0], [0.1, 8.0, -0.3, 2.0]]),
        "h2": np.ones((2, 2)),
    }
    close(redo.scores(acts["h1"]), np.array([0.1, 8.0, 0.3, 2.0]) / 2.6)
    run = partial(redo.step, optimizer=adam, period=2, tau=0.1)
    fresh, state = network(2), redo.init()
    opt = optimizers.init_adam(params)
    first, opt, state, masks = run(params, grads, opt, state, acts, fresh)
    assert not any(mask.any() for mask in masks.values())
    close(first, adam(params, grads, optimizers.init_adam(params))[0])
    second, opt, _, masks = run(first, grads, opt, state, acts, fresh)
    assert masks["h1"].tolist() == [True, False, False, False]
    assert not masks["h2"].any()
    close(second["h1"]["kernel"][:, 0], fresh["h1"]["kernel"][:, 0])
    close(second["h2"]["kernel"][0], np.zeros(2))
    for key in ("m", "v"):
        assert not opt[key]["h1"]["kernel"][:, 0].any()
        assert opt[key]["h1"]["scale"].tolist()[0] == 0
        assert opt[key]["h1"]["scale"][1] != 0
        assert not opt[key]["h2"]["kernel"][0].any()
    assert opt["count"] == 2


def test_redo_scores_of_dead_layers_and_convolutions():
    assert not redo.scores(np.zeros((3, 4))).any()
    h = np.zeros((2, 3, 3, 2))
    h[0, 0, 0] = [-18.0, 6.0]
    close(redo.scores(h), np.array([1.5, 0.5]))


def test_grama_finds_an_active_unit_without_gradient():
    params, grads, _ = redo_setting()
    grads["h1"]["kernel"] = np.ones((3, 4)) * [1.0, -2.0, 0.0, 1.0]
    grads["h2"]["kernel"] = np.ones((4, 2))
    close(grama.scores(grads["h1"]["kernel"]), np.array([1.0, 2.0, 0.0, 1.0]))
    fresh = network(2)
    new, _, _, masks = grama.step(
        params, grads, {}, grama.init(), fresh, optimizer=sgd, period=1
    )
    assert masks["h1"].tolist() == [False, False, True, False]
    assert not masks["h2"].any()
    close(new["h1"]["kernel"][:, 2], fresh["h1"]["kernel"][:, 2])
    assert new["h1"]["bias"][2] == 0 and not new["h2"]["kernel"][2].any()


def snr_step(state, fires, params=None, **options: Any):
    """One step in which the units of `fires` ([U] of 0 and 1) of h1 fire; B = 2."""
    params = network(1) if params is None else params
    z = {"h1": np.array([np.asarray(fires) - 0.5, [-1.0] * 4]), "h2": np.ones((2, 2))}
    options = {"period": 1000, "tau_min": 2, **options}
    return snr.step(
        params, zeros(params), {}, state, z, network(2), optimizer=still, **options
    )


def test_snr_ages_histograms_and_resets():
    params = network(1)
    state = snr.init(params, tau_max=10, threshold=4)
    _, _, state, masks = snr_step(state, [1, 0, 1, 0])
    close(state["age"]["h1"], np.array([0.0, 2.0, 0.0, 2.0]))
    assert not masks["h1"].any()
    new, _, state, masks = snr_step(state, [1, 1, 0, 0])
    # Unit 3 has not fired for 4 examples: reset, and its age is on record.
    assert masks["h1"].tolist() == [False, False, False, True]
    close(state["age"]["h1"], np.array([0.0, 0.0, 2.0, 0.0]))
    close(new["h1"]["kernel"][:, 3], network(2)["h1"]["kernel"][:, 3])
    assert not new["h2"]["kernel"][3].any() and new["h1"]["bias"][3] == 0
    expected = np.zeros((4, 11))
    expected[0, 0], expected[1, 2], expected[2, 0], expected[3, 4] = 2, 1, 1, 1
    close(state["histogram"]["h1"], expected)


def test_snr_percentile_by_hand():
    histogram = np.zeros((3, 6))
    histogram[0, [0, 1, 4]] = [1000, 98, 2]  # ages 0 do not count
    histogram[1, [2, 3]] = [99, 1]
    histogram[2, 0] = 5
    assert snr.percentile(histogram, 0.99)[:2].tolist() == [4, 2]
    assert np.isnan(snr.percentile(histogram, 0.99)[2])


def test_snr_threshold_rule():
    histogram = np.zeros((4, 21))
    histogram[[0, 1, 2], [5, 12, 1]] = 1
    threshold = np.array([8.0, 12.0, 8.0, 8.0])
    new = partial(snr.new_threshold, threshold, histogram, tau_min=3)
    # 5 < 8 -> 5; 12 is not < 12 -> 24, clipped to 20; 1 -> clipped to 3; NaN -> 3.
    close(new(), np.array([5.0, 20.0, 3.0, 3.0]))
    close(new(empty="keep"), np.array([5.0, 20.0, 3.0, 8.0]))


def test_snr_updates_thresholds_and_clears_histograms_every_period():
    state = snr.init(network(1), tau_max=10)
    close(state["threshold"]["h2"], np.array([10.0, 10.0]))
    _, _, state, _ = snr_step(state, [1, 0, 1, 0], period=2)
    assert state["histogram"]["h1"].any()
    _, _, state, _ = snr_step(state, [1, 1, 0, 0], period=2)
    # h1: ages above 0 on record: none, {2}, none, none. h2 always fires.
    close(state["threshold"]["h1"], np.array([2.0, 2.0, 2.0, 2.0]))
    close(state["threshold"]["h2"], np.array([2.0, 2.0]))
    assert not state["histogram"]["h1"].any()


def test_snr_late_ages_count_in_the_last_bin():
    counted = snr.record(
        np.zeros((2, 6)), np.array([99.0, 3.0]), np.array([True, False])
    )
    assert counted[0, 5] == 1 and counted.sum() == 1
