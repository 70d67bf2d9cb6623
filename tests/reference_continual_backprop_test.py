"""The numpy oracle of continual backprop against numbers worked out by hand."""

from functools import partial

import chex
import jax
import numpy as np
import pytest

from tests.oracle_setting import close
from tests.reference import continual_backprop as cbp
from tests.reference import mlp, optimizers
from tests.reference.utilities import init_state, update_utility

# ---- continual backprop: utilities. eta = 1/2, h = (4, 1), then (0, 3).
# |w_in| averages (2, 1), |w_out| (3, 1).

W_IN = np.array([[1.0, -1.0], [3.0, 1.0]])
W_OUT = np.array([[2.0, -4.0], [1.0, 1.0]])
NET = {
    "h1": {"kernel": W_IN, "bias": np.array([5.0, 6.0])},
    "head": {"kernel": W_OUT, "bias": np.array([7.0, 8.0])},
}
H = [np.array([[4.0, 1.0]]), np.array([[0.0, 3.0]])]


def after_two(**options):
    state, u_hat, f_hat = init_state(NET), np.zeros(2), np.zeros(2)
    for h in H:
        u_hat, f_hat = update_utility(state, "h1", h, W_IN, W_OUT, decay=0.5, **options)
    return u_hat, f_hat, state


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # current: f = (2, 1/2), (1, 7/4); f_hat = h, then (4/3, 7/3), so that
        # |h - f_hat| = 0, then (4/3, 2/3); u = y / 2 and kappa = 3/4 where y_1 = 0.
        ("weight", (3.0, 1.0)),
        ("contribution", (4.0, 7 / 3)),  # y = (12, 1), (0, 3); u = (3, 7/4)
        ("zero_contribution", (8 / 3, 4 / 9)),
        ("adaptation", (1 / 2, 1.0)),
        ("adaptable_contribution", (4 / 3, 4 / 9)),
        ("feature_by_input", (4 / 9, 4 / 9)),
        ("random", (0.3, 0.2)),
    ],
)
def test_utilities_by_hand(kind, expected):
    u_hat, f_hat, state = after_two(utility=kind, random_utility=np.array([0.3, 0.2]))
    close(u_hat, np.array(expected))
    close(f_hat, np.array([4 / 3, 7 / 3]))
    close(state.mean_activation["h1"], np.array([1.0, 7 / 4]))
    close(state.age["h1"], np.array([2.0, 2.0]))


def test_previous_and_absent_bias_correction_by_hand():
    # f_hat = 0, then (2, 1/2) / (3/4) = (8/3, 2/3); |h - f_hat| = (8/3, 7/3)
    # y = (6, 1), (4, 7/3); u = (3, 1/2), (7/2, 17/12); u_hat = (3, 1/2) / (3/4)
    u_hat, f_hat, state = after_two(bias_correction="previous")
    close(u_hat, np.array([4.0, 2 / 3]))
    close(f_hat, np.array([8 / 3, 2 / 3]))
    close(state.utility["h1"], np.array([7 / 2, 17 / 12]))
    # Nature: sums, so y = (24, 2), (0, 6); u = (12, 1), (6, 7/2)
    u_hat, _, _ = after_two(
        utility="contribution", bias_correction="none", magnitude="sum"
    )
    close(u_hat, np.array([6.0, 7 / 2]))


def test_batch_mean_is_of_magnitudes_and_leaves_padding_out():
    h = np.array([[1.0, 2.0], [-3.0, 2.0], [50.0, 50.0]])
    u_hat, f_hat = update_utility(
        init_state(NET),
        "h1",
        h,
        W_IN,
        W_OUT,
        utility="contribution",
        example_weight=np.array([1.0, 1.0, 0.0]),
    )
    close(f_hat, np.array([-1.0, 2.0]))
    close(u_hat, np.array([3 * 2.0, 1 * 2.0]))


# ---- continual backprop: how many, which, and what becomes of them


def count_of(accumulator, mature, **options):
    eligible = np.arange(4) < mature
    return cbp.number_to_replace(accumulator, eligible, **options)


def test_number_to_replace_by_hand():
    quarter, eighth = {"replacement_rate": 0.25}, {"replacement_rate": 0.125}
    assert count_of(0.5, 0, **quarter) == (0, 0.5)  # nothing mature: no accumulation
    assert count_of(0.25, 2, **quarter) == (0, 0.75)
    assert count_of(0.5, 2, **quarter) == (1, 0.0)  # 1 is enough in the code
    assert count_of(0.5, 2, selection="nature", **quarter) == (
        0,
        1.0,
    )  # c > 1, strictly
    assert count_of(0.75, 2, selection="nature", **quarter) == (1, 0.25)
    assert count_of(0.0, 4, selection="nature", replacement_rate=0.75) == (1, 2.0)
    assert count_of(0.0, 4, replacement_rate=0.75) == (3, 0.0)
    assert count_of(0.0, 4, replacement_rate=0.75, max_replaced=2) == (2, 1.0)
    assert count_of(0.5, 1, count="total", **eighth) == (1, 0.0)
    assert count_of(2.5, 1, count="total", **eighth) == (1, 2.0)  # only 1 to be had
    chance = partial(count_of, 0.0, 2, selection="probabilistic")
    assert chance(uniform=0.49, **quarter) == (1, 0.0)
    assert chance(uniform=0.5, **quarter) == (0, 0.0)
    assert chance(uniform=0.0, replacement_rate=0.75) == (1, 0.0)  # 1.5, fraction lost


def test_least_useful_of_the_eligible():
    u_hat = np.array([0.0, 2.0, 1.0, 1.0, 3.0])
    eligible = np.array([False, True, True, True, True])
    assert cbp.least_useful(u_hat, eligible, 1).tolist() == [0, 0, 1, 0, 0]
    assert cbp.least_useful(u_hat, eligible, 3).tolist() == [0, 1, 1, 1, 0]
    assert not cbp.least_useful(u_hat, eligible, 0).any()


def two_generate_and_tests(**options):
    params, state, fresh = NET, init_state(NET), np.array([[0.1, 0.2], [0.3, 0.4]])
    replaced = {"h1": np.zeros(2, bool)}
    for h in H:
        params, state, replaced = cbp.generate_and_test(
            params,
            state,
            {"h1": h},
            fresh={"h1": fresh},
            decay=0.5,
            maturity=1,
            replacement_rate=0.5,
            **options,
        )
    return params, state, replaced["h1"].tolist()


@pytest.mark.parametrize("compensate", [False, True])
def test_replacement_by_hand(compensate):
    # Mature (age 2 > 1) at step 2 only, where c = 2 * 1/2 = 1; u_hat = (4/3, 4/9).
    params, state, replaced = two_generate_and_tests(bias_compensation=compensate)
    assert replaced == [False, True]
    gain = 7 / 3 if compensate else 0.0  # f_hat of the unit, times w_out = (1, 1)
    expected = {
        "h1": {
            "kernel": np.array([[1.0, 0.2], [3.0, 0.4]]),
            "bias": np.array([5.0, 0.0]),
        },
        "head": {
            "kernel": np.array([[2.0, -4.0], [0.0, 0.0]]),
            "bias": np.array([7.0 + gain, 8.0 + gain]),
        },
    }
    close(params, expected)
    close(state.utility["h1"], np.array([1.0, 0.0]))
    close(state.mean_activation["h1"], np.array([1.0, 0.0]))
    close(state.age["h1"], np.array([2.0, 0.0]))
    assert state.accumulator["h1"] == 0


@pytest.mark.parametrize("preset", [cbp.RELEASED, cbp.ARXIV, cbp.NATURE])
def test_presets_run_and_nature_waits_for_more_than_one(preset):
    _, state, replaced = two_generate_and_tests(**preset)
    due = preset is cbp.NATURE  # c = 1 is not > 1
    assert replaced == [False, not due]
    assert state.accumulator["h1"] == float(due)


def test_arguments_are_not_changed():
    state = init_state(NET)
    before = mlp.cast(NET)
    cbp.generate_and_test(
        NET, state, {"h1": H[0]}, fresh={"h1": W_IN}, maturity=0, replacement_rate=0.5
    )
    chex.assert_trees_all_equal(NET, before)
    chex.assert_trees_all_equal(vars(state), vars(init_state(NET)))


def test_all_layers_are_tested_before_any_is_changed():
    """Unit 0 of h1 and unit 0 of h2 go together: their weight is redrawn, not zero."""
    params = {
        "h1": {"kernel": np.array([[1.0, 1.0]]), "bias": np.zeros(2)},
        "h2": {"kernel": np.array([[9.0, 2.0], [3.0, 4.0]]), "bias": np.zeros(2)},
        "head": {"kernel": np.array([[1.0], [1.0]]), "bias": np.zeros(1)},
    }
    out, state, replaced = cbp.generate_and_test(
        params,
        init_state(params),
        {"h1": np.array([[0.1, 1.0]]), "h2": np.array([[1.0, 1.0]])},
        fresh={"h1": np.full((1, 2), 0.5), "h2": np.full((2, 2), 0.25)},
        # Of h2, |w_in| averages (6, 3), hence y = (1/6, 1/3), and unit 0 goes; had h1
        # been changed first, it would average (1.5, 2), and unit 1 would go.
        utility="adaptation",
        maturity=0,
        replacement_rate=0.5,
        decay=0.5,
    )
    assert replaced["h1"].tolist() == replaced["h2"].tolist() == [True, False]
    close(
        state.utility["h2"], np.array([0.0, 1 / 6])
    )  # (1 - eta) / 3, before h1 changed
    close(out["h2"]["kernel"], np.array([[0.25, 0.0], [0.25, 4.0]]))
    close(out["head"]["kernel"], np.array([[0.0], [1.0]]))


def test_float32_stays_float32():
    params = mlp.cast(NET, np.float32)
    update = partial(optimizers.adam, step_size=0.1)
    out = cbp.step(
        params,
        optimizers.init_adam_per_element(params),
        init_state(params, np.float32),
        [[1.0, 2.0]],
        [1],
        optimizer=update,
        fresh={"h1": W_IN},
        example_weight=np.ones(1),
        maturity=0,
        replacement_rate=0.5,
        dtype=np.float32,
    )
    assert out.replaced["h1"].sum() == 1
    for array in jax.tree.leaves([out.params, vars(out.state), out.opt_state]):
        assert array.dtype == np.float32
