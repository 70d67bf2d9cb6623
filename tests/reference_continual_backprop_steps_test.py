"""Properties of the numpy oracle of continual backprop over many steps."""

from functools import partial

import chex
import numpy as np
import pytest

from tests.oracle_setting import close
from tests.reference import continual_backprop as cbp
from tests.reference import mlp, optimizers
from tests.reference.utilities import init_state


def fresh_columns(rng, params):
    return {
        n: rng.normal(size=params[n]["kernel"].shape) for n in params if n != "head"
    }


def run_cbp(rng, steps, sizes=(3, 6, 5, 2), **options):
    params = mlp.random_params(rng, sizes)
    opt_state, state = optimizers.init_sgd(params), init_state(params)
    for _ in range(steps):
        x, y = rng.normal(size=(1, sizes[0])), rng.integers(sizes[-1], size=1)
        out = cbp.step(
            params,
            opt_state,
            state,
            x,
            y,
            optimizer=partial(optimizers.sgd, step_size=0.05),
            fresh=fresh_columns(rng, params),
            **options,
        )
        yield params, x, y, state, out
        params, opt_state, state = out.params, out.opt_state, out.state


def test_rate_zero_is_backprop():
    for params, x, y, _, out in run_cbp(
        np.random.default_rng(2), 20, replacement_rate=0.0, maturity=0
    ):
        grads = mlp.loss_and_grads(params, x, y)[2]
        plain, _ = optimizers.sgd(params, grads, {}, step_size=0.05)
        chex.assert_trees_all_equal(out.params, plain)


def test_first_replacement_is_at_maturity_plus_one_and_counts_add_up():
    replaced, due = {"h1": 0, "h2": 0}, {"h1": 0.0, "h2": 0.0}
    first = {}
    runs = run_cbp(np.random.default_rng(3), 60, replacement_rate=1 / 8, maturity=7)
    for t, (_, _, _, before, out) in enumerate(runs, start=1):
        for name, mask in out.replaced.items():
            if mask.any():
                first.setdefault(name, t)
            assert not mask[before.age[name] + 1 <= 7].any()
            replaced[name] += int(mask.sum())
            due[name] += np.sum(before.age[name] + 1 > 7) / 8
    # 6/8 and 5/8 at update 8: the first whole unit is due at update 9.
    assert first == {"h1": 9, "h2": 9}
    assert replaced == {name: int(total) for name, total in due.items()}
    assert min(replaced.values()) > 5


@pytest.mark.parametrize("compensate", [False, True])
def test_replacement_takes_only_the_units_own_contribution(compensate):
    """One hidden layer: logits change by -w_out h (+ w_out f_hat), no more."""
    rng, seen = np.random.default_rng(4), 0
    params = mlp.random_params(rng, (3, 6, 2))
    state = init_state(params)
    for _ in range(20):
        x = rng.normal(size=(1, 3))
        logits, acts, _ = mlp.forward(params, x)
        new, after, replaced = cbp.generate_and_test(
            params,
            state,
            {"h1": acts["h1"]},
            fresh=fresh_columns(rng, params),
            maturity=3,
            replacement_rate=1 / 16,
            bias_compensation=compensate,
            decay=0.5,
        )
        mask = replaced["h1"]
        f = 0.5 * state.mean_activation["h1"] + 0.5 * acts["h1"][0]
        f_hat = f / (1 - 0.5 ** (state.age["h1"] + 1))
        lost = acts["h1"][0] - (f_hat if compensate else 0.0)
        expected = logits - (mask * lost) @ params["head"]["kernel"]
        close(mlp.forward(new, x)[0], expected)
        params, state, seen = new, after, seen + int(mask.sum())
    assert seen > 2
