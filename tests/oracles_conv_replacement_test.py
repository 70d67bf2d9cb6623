"""What the convolutional numpy oracle replaces, and when, against facts by hand."""

from functools import partial

import numpy as np
import pytest

from tests.conv_oracle_setting import (
    deep_network,
    kernels,
    random_network,
    still,
    two_positions,
)
from tests.oracle_setting import close
from tests.reference import continual_backprop, mlp
from tests.reference.conv_training import generate_and_test
from tests.reference.mlp import map_params
from tests.reference.utilities import init_state


def test_a_replaced_channel_is_new_in_every_window_and_at_every_position():
    params, activations = two_positions()
    before = map_params(np.copy, params)
    fresh = kernels(random_network(6, c1=(1, 1, 2, 2), h1=(4, 2)))
    options = {"fresh": fresh, "decay": 0.5, "maturity": 0, "replacement_rate": 0.5}
    new, state, masks = generate_and_test(
        params, init_state(params), activations, **options
    )
    # Channel 1 contributes least; h1's contributions are 2 and 1 times mean |head|.
    small = np.abs(params["head"]["kernel"]).mean(1) * [2, 1]
    unit, other = np.argsort(small)
    assert masks["c1"].tolist() == [False, True]
    assert np.flatnonzero(masks["h1"]).tolist() == [unit]
    close(params, before)
    close(new["c1"]["kernel"][..., 1], fresh["c1"][..., 1])
    close(new["c1"]["kernel"][..., 0], params["c1"]["kernel"][..., 0])
    close(new["c1"]["bias"], np.array([params["c1"]["bias"][0], 0]))
    # Rows 1 and 3 are channel 1's two positions; the new unit of h1 is drawn after.
    close(new["h1"]["kernel"][:, unit], fresh["h1"][:, unit])
    kept = params["h1"]["kernel"][:, other]
    close(new["h1"]["kernel"][:, other], kept * [1, 0, 1, 0])
    assert new["h1"]["bias"][unit] == 0
    assert new["h1"]["bias"][other] == params["h1"]["bias"][other]
    close(new["head"]["kernel"][unit], np.zeros(2))
    close(new["head"]["kernel"][other], params["head"]["kernel"][other])
    close(new["head"]["bias"], params["head"]["bias"])
    close(state.age["c1"], np.array([1.0, 0.0]))
    close(state.utility["c1"], np.array([9.5, 0.0]))
    close(state.mean_activation["c1"], np.array([2.5, 0.0]))
    assert state.accumulator == {"c1": 0.0, "h1": 0.0}


def test_a_channel_that_a_convolution_reads_is_cut_in_its_whole_window():
    params, fresh = deep_network(), kernels(deep_network(7))
    rng = np.random.default_rng(8)
    shapes = {"c1": (4, 5, 3, 3), "c2": (4, 2, 1, 2), "h1": (4, 3)}
    activations = {name: rng.uniform(1, 2, shape) for name, shape in shapes.items()}
    activations["c1"][..., 1] = 0
    state = init_state(params)
    state.age["c1"] += 5  # c2 and h1 are too young
    new, _, masks = generate_and_test(
        params,
        state,
        activations,
        fresh=fresh,
        replacement_rate=0.4,
        decay=0.9,
        maturity=3,
    )
    assert masks["c1"].tolist() == [False, True, False]
    assert not masks["c2"].any() and not masks["h1"].any()
    close(new["c1"]["kernel"][..., 1], fresh["c1"][..., 1])
    expected = params["c2"]["kernel"].copy()
    expected[:, :, 1] = 0
    close(new["c2"]["kernel"], expected)
    close(new["c2"]["bias"], params["c2"]["bias"])
    close({n: new[n] for n in ("h1", "head")}, {n: params[n] for n in ("h1", "head")})


def test_the_rank_is_by_the_corrected_utility():
    params, activations = two_positions()
    state = init_state(params)
    state.age["c1"], state.utility["c1"] = np.array([0.0, 9.0]), np.array([0.0, 28.0])
    # u: 19 / 2 and 28 / 2 + 1 / 2; u_hat: 19 and 14.5 / (1 - 1/1024).
    run = partial(still, params, activations, state=state, replacement_rate=0.5)
    assert run()[2]["c1"].tolist() == [False, True]
    assert run(bias_correction="none")[2]["c1"].tolist() == [True, False]


def test_all_layers_choose_before_any_weight_changes():
    params, activations = two_positions()
    run = partial(still, params, activations, utility="adaptable_contribution")
    _, before, _ = run()
    _, after, masks = run(replacement_rate=0.5)
    assert masks["c1"].sum() == masks["h1"].sum() == 1
    for name, mask in masks.items():
        close(after.utility[name], np.where(mask, 0, before.utility[name]))


def test_nothing_accumulates_before_something_is_eligible():
    params, activations = two_positions()
    run = partial(still, replacement_rate=0.2, maturity=2)
    state = init_state(params)
    due, counts = [], []
    for _ in range(5):
        params, state, masks = run(params, activations, state=state)
        due.append(float(state.accumulator["c1"]))
        counts.append(int(masks["c1"].sum()))
    # Ages 1 and 2 are protected; from age 3 on two units of 0.2 a step.
    assert due == pytest.approx([0, 0, 0.4, 0.8, 0.2])
    assert counts == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(("count", "expected"), [("total", 0.6), ("eligible", 0.2)])
def test_count_says_which_units_accumulate(count, expected):
    params = deep_network()
    state = init_state(params)
    state.age["c1"] = np.array([0.0, 9.0, 0.0])
    shapes = {"c1": (4, 5, 3, 3), "c2": (4, 2, 1, 2), "h1": (4, 3)}
    activations = {name: np.ones(shape) for name, shape in shapes.items()}
    run = partial(still, params, activations, state=state, maturity=5, count=count)
    _, after, masks = run(replacement_rate=0.2)
    assert after.accumulator == pytest.approx({"c1": expected, "c2": 0, "h1": 0})
    assert not masks["c1"].any()
    # Only an eligible unit goes, however many are due; the others stay due.
    _, after, masks = run(replacement_rate=2.0)
    assert masks["c1"].tolist() == [False, True, False]
    assert after.accumulator["c1"] == pytest.approx(10 * expected - 1)
    assert state.age["c1"].tolist() == [0, 9, 0]


def test_max_replaced_leaves_the_rest_due():
    params, activations = two_positions()
    _, state, masks = still(
        params, activations, replacement_rate=1.0, count="eligible", max_replaced=1
    )
    assert masks["c1"].tolist() == [False, True]
    assert masks["h1"].sum() == 1
    assert state.accumulator == {"c1": 1.0, "h1": 1.0}


@pytest.mark.parametrize(
    "utility", ["contribution", "zero_contribution", "adaptable_contribution"]
)
@pytest.mark.parametrize("bias_correction", ["current", "none"])
def test_on_dense_layers_it_is_the_dense_oracle(utility, bias_correction):
    options = {"utility": utility, "bias_correction": bias_correction, "decay": 0.9}
    options |= {"replacement_rate": 0.15, "maturity": 2, "count": "total"}
    rng = np.random.default_rng(9)
    ours = theirs = mlp.random_params(rng, (3, 4, 3, 2))
    our_state = their_state = init_state(ours)
    replaced = 0
    for _ in range(12):
        fresh = kernels(mlp.random_params(rng, (3, 4, 3, 2)))
        acts = {"h1": rng.uniform(size=(5, 4)), "h2": rng.uniform(size=(5, 3))}
        ours, our_state, our_masks = generate_and_test(
            ours, our_state, acts, fresh=fresh, **options
        )
        theirs, their_state, their_masks = continual_backprop.generate_and_test(
            theirs, their_state, acts, fresh=fresh, **options
        )
        close(ours, theirs)
        close(vars(our_state), vars(their_state))
        close(our_masks, their_masks)
        replaced += sum(mask.sum() for mask in our_masks.values())
    assert replaced > 5
