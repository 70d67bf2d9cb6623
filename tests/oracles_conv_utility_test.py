"""The utilities of the convolutional numpy oracle against facts worked out by hand."""

from functools import partial

import numpy as np
import pytest

from tests.conv_oracle_setting import FEATURES, random_network, still, two_positions
from tests.oracle_setting import close


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


def test_unknown_options_are_refused():
    params, activations = two_positions()
    with pytest.raises(ValueError, match="unknown utility"):
        still(params, activations, utility="weight")
    with pytest.raises(ValueError, match="unknown bias_correction"):
        still(params, activations, bias_correction="previous")
