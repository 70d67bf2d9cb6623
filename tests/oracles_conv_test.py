"""The numpy oracle of training convolutional networks against facts by hand."""

from functools import partial

import numpy as np
import pytest

from tests.oracle_setting import agrees, central_differences, close
from tests.reference import continual_backprop, conv, mlp
from tests.reference.conv_training import generate_and_test, loss_and_grads
from tests.reference.mlp import map_params
from tests.reference.utilities import init_state


def random_network(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": rng.normal(size=shape), "bias": rng.normal(size=shape[-1])}
        for name, shape in shapes.items()
    }


def deep_network(seed=0):
    """13 x 9 pixels: c1 11 x 7, pooled 5 x 3; c2 4 x 2, pooled 2 x 1 positions."""
    shapes = {"c1": (3, 3, 2, 3), "c2": (2, 2, 3, 2), "h1": (4, 3), "head": (3, 2)}
    return random_network(seed, **shapes)


def kernels(params):
    return {name: layer["kernel"] for name, layer in params.items() if name != "head"}


def test_the_gradients_are_those_of_central_differences():
    params = deep_network()
    x = np.random.default_rng(1).normal(size=(3, 13, 9, 2))
    y = np.array([0, 1, 1])
    loss, activations, grads = loss_and_grads(params, x, y, 2)
    assert all(np.any(grad) for layer in grads.values() for grad in layer.values())
    agrees(grads, central_differences(lambda p: loss_and_grads(p, x, y, 2)[0], params))
    expected = conv.cnn_forward(params, x, 2)
    per_example, _ = mlp.cross_entropy(expected.pop("logits"), y)
    assert loss == pytest.approx(per_example.mean())
    assert list(activations) == ["c1", "c2", "h1"]
    close(activations, expected)
    assert activations["c1"].shape == (3, 5, 3, 3)
    assert activations["c2"].shape == (3, 2, 1, 2)


def test_without_convolutions_the_gradients_are_those_of_the_dense_network():
    params = mlp.random_params(np.random.default_rng(2), (4, 3, 2, 2))
    x, y = np.random.default_rng(3).normal(size=(5, 4)), np.array([0, 1, 1, 0, 1])
    loss, activations, grads = loss_and_grads(params, x, y, 2)
    expected, acts, expected_grads = mlp.loss_and_grads(params, x, y)
    assert loss == pytest.approx(expected)
    close(activations, {name: acts[name] for name in ("h1", "h2")})
    close(grads, expected_grads)


def test_the_first_of_equal_maxima_gets_the_gradient_and_the_rim_none():
    # All four pre-activations of the full window are 1; what each pixel shows differs.
    # The incomplete windows, whose pre-activations are far larger, count for nothing.
    x = np.full((1, 3, 3, 2), 9.0)
    x[0, :2, :2] = [[[0.25, 0.75], [0, 1]], [[0.5, 0.5], [1, 0]]]
    params = {
        "c1": {"kernel": np.ones((1, 1, 2, 1)), "bias": np.zeros(1)},
        "head": {"kernel": np.array([[1.0, -1.0]]), "bias": np.zeros(2)},
    }
    loss, activations, grads = loss_and_grads(params, x, [0], 2)
    p = 1 / (1 + np.exp(2))  # probability of the wrong label, at logits 1 and -1
    assert loss == pytest.approx(np.log1p(np.exp(-2)))
    close(activations["c1"], np.ones((1, 1, 1, 1)))
    close(grads["head"]["kernel"], np.array([[-p, p]]))
    close(grads["c1"]["bias"], np.array([-2 * p]))
    close(grads["c1"]["kernel"].ravel(), -2 * p * np.array([0.25, 0.75]))


def test_the_channel_is_the_fastest_index_of_the_flattened_features():
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])  # two positions of two channels
    params = {
        "c1": {"kernel": np.eye(2)[None, None], "bias": np.zeros(2)},
        "head": {"kernel": np.zeros((4, 2)), "bias": np.zeros(2)},
    }
    _, _, grads = loss_and_grads(params, x, [1], 1)
    close(grads["head"]["kernel"], np.outer([1, 2, 3, 4], [0.5, -0.5]))


# Batch of 2, two positions, two channels. Channel 0 is 0 then 8 at the first position
# and always 6 at the second (mean 5); channel 1 is always 1.
FEATURES = np.array([[[[0.0, 1], [6, 1]]], [[[8, 1], [6, 1]]]])


def two_positions():
    """c1 as above; mean |w| out of channel 0: 2 and 5, of channel 1: 2 and 0."""
    params = random_network(4, c1=(1, 1, 2, 2), h1=(4, 2), head=(2, 2))
    params["c1"]["kernel"] = np.array([[[[2.0, 1.0], [-6.0, 3.0]]]])  # means 4 and 2
    params["h1"]["kernel"] = np.array([[1.0, -3], [2, 2], [-5, 5], [0, 0]])
    return params, {"c1": FEATURES, "h1": np.array([[1.0, 2], [3, 0]])}


def still(params, activations, **options):
    """One step at rate 0."""
    options = {"replacement_rate": 0.0, "decay": 0.5, "maturity": 0} | options
    state = options.pop("state", None) or init_state(params)
    return generate_and_test(
        params, state, activations, fresh=kernels(params), **options
    )


@pytest.mark.parametrize(
    ("utility", "bias_correction", "expected"),
    [
        ("contribution", "current", [(2 * 4 + 5 * 6) / 2, (2 * 1 + 0 * 1) / 2]),
        ("contribution", "none", [19, 1]),
        # |0 - 5| and |8 - 5| average to 4, |6 - 5| is 1; channel 1 never moves.
        ("zero_contribution", "current", [(2 * 4 + 5 * 1) / 2, 0]),
        # f is half the mean: |0 - 2.5|, |8 - 2.5| give 4, |6 - 2.5| 3.5; |1 - 0.5|.
        ("zero_contribution", "none", [(2 * 4 + 5 * 3.5) / 2, (2 * 0.5) / 2]),
        ("adaptable_contribution", "current", [6.5 / 4, 0]),
        ("adaptable_contribution", "none", [12.75 / 4, 0.5 / 2]),
    ],
)
def test_a_dense_layers_weights_meet_the_features_position_by_position(
    utility, bias_correction, expected
):
    params, activations = two_positions()
    new, state, masks = still(
        params, activations, utility=utility, bias_correction=bias_correction
    )
    close(state.utility["c1"], 0.5 * np.array(expected, float))
    close(state.mean_activation["c1"], np.array([2.5, 0.5]))
    close(state.age["c1"], np.ones(2))
    close(new, params)
    assert not any(mask.any() for mask in masks.values())


def test_the_second_step_corrects_by_the_age_and_keeps_the_raw_averages():
    params, activations = two_positions()
    run = partial(still, utility="zero_contribution")
    _, state, _ = run(params, activations)
    _, state, _ = run(params, {**activations, "c1": 0 * FEATURES}, state=state)
    # f: 2.5 -> 1.25; f_hat = 1.25 / (1 - 1/4) = 5/3, the deviation of both positions.
    close(state.mean_activation["c1"], np.array([1.25, 0.25]))
    expected = 0.5 * 3.25 + 0.5 * (2 + 5) / 2 * 5 / 3
    close(state.utility["c1"], np.array([expected, 0.5 * (2 + 0) / 2 / 3]))


def test_a_convolution_weighs_all_positions_by_its_mean_weight():
    params = random_network(5, c1=(1, 1, 2, 2), c2=(1, 2, 2, 2), head=(2, 2))
    # [1, 2 columns, 2 inputs, 2 outputs]: input 0 |1|, |2|, |3|, |6|, input 1 |1| x 4.
    params["c2"]["kernel"] = np.array([[[[1.0, -2], [1, 1]], [[-3, 6], [-1, 1]]]])
    activations = {"c1": FEATURES, "c2": np.ones((2, 1, 1, 2))}
    _, state, _ = still(params, activations)
    close(state.utility["c1"], 0.5 * np.array([3 * (4 + 6) / 2, 1.0]))
    _, state, _ = still(params, activations, utility="zero_contribution")
    close(state.utility["c1"], 0.5 * np.array([3 * (4 + 1) / 2, 0]))


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


def test_unknown_options_are_refused():
    params, activations = two_positions()
    with pytest.raises(ValueError, match="unknown utility"):
        still(params, activations, utility="weight")
    with pytest.raises(ValueError, match="unknown bias_correction"):
        still(params, activations, bias_correction="previous")
