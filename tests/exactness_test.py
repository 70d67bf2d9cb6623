"""Continual backprop, 200 compiled steps, against the numpy oracle."""

from functools import partial

import chex
import jax
import numpy as np
import pytest

from cl_bench.methods import _utility, continual_backprop
from cl_bench.networks import mlp
from tests import tiny
from tests.reference import continual_backprop as oracle
from tests.reference import optimizers as oracle_optimizers
from tests.reference.utilities import init_state

STEPS = 200
WIDTHS = (8, 8, 6)
NAMES = ("h1", "h2", "h3")
NET = mlp.make(tiny.SPEC, widths=WIDTHS)
RATE = 1 / 64  # a power of two: the accumulators are exact, so no floor can differ
DECAY = 0.9
MATURITY = 5

VARIANTS = {
    "released": oracle.RELEASED,
    "arxiv": oracle.ARXIV,
    "nature": oracle.NATURE,
}
OPTIMIZERS = {
    "sgd": (oracle_optimizers.init_sgd, oracle_optimizers.sgd, {}),
    "momentum": (oracle_optimizers.init_momentum, oracle_optimizers.momentum, {"mu": 0.9}),
    "adam": (oracle_optimizers.init_adam, oracle_optimizers.adam, {}),
    "aged_adam": (oracle_optimizers.init_adam_per_element, oracle_optimizers.adam, {}),
    "adam_gnt": (oracle_optimizers.init_adam_per_element, oracle_optimizers.adam_gnt, {}),
}  # fmt: skip

CASES = {
    "released": {},
    "nature": {"variant": "nature"},
    "nature replaces one at a time": {
        "variant": "nature", "replacement_rate": 1 / 4, "max_replaced": 3,
    },
    "arxiv": {"variant": "arxiv", "compensate_bias": True},
    "three at once": {"replacement_rate": 1 / 4, "max_replaced": 3},
    "more due than one a step": {"replacement_rate": 1 / 4},
    "released, compensated": {
        "compensate_bias": True, "max_replaced": 3, "replacement_rate": 1 / 8,
    },
    "all units count": {"count": "total"},
    "probabilistic": {"accumulate": False},
    "probabilistic, more than one": {
        "accumulate": False, "replacement_rate": 3 / 8, "max_replaced": 3,
    },
    **{utility: {"utility": utility} for utility in _utility.UTILITIES},
    "momentum kept": {"optimizer": "momentum", "moment_reset": "none"},
    "momentum reset": {"optimizer": "momentum", "moment_reset": "moments"},
    "adam reset": {"optimizer": "adam", "moment_reset": "moments"},
    "aged adam reset": {"optimizer": "aged_adam", "moment_reset": "moments"},
    "aged adam and count": {"optimizer": "aged_adam", "moment_reset": "moments+count"},
    "AdamGnT": {"optimizer": "adam_gnt", "moment_reset": "moments+count"},
}  # fmt: skip


def hyper_of(case):
    chosen = {"optimizer": "sgd", "moment_reset": "none", **case}
    adaptive = chosen["optimizer"] not in ("sgd", "momentum")
    return continual_backprop.Hyper(
        **{
            "step_size": 0.001 if adaptive else 0.01,
            "replacement_rate": RATE,
            "decay": DECAY,
            "maturity_threshold": MATURITY,
            **chosen,
        }
    )


def options_of(hyper):
    """The same settings in the oracle's words."""
    options = dict(VARIANTS[hyper.variant], bias_compensation=hyper.compensate_bias)
    options["utility"] = hyper.utility or options["utility"]
    options["count"] = hyper.count
    if not hyper.accumulate:
        options["selection"] = "probabilistic"
    return options | {
        "replacement_rate": hyper.replacement_rate,
        "decay": hyper.decay,
        "maturity": hyper.maturity_threshold,
        "max_replaced": hyper.max_replaced,
        "moment_reset": hyper.moment_reset,
        "magnitude": "mean",  # as the JAX code; the ranks are those of the sum
    }


def draws(i):
    """The uniform numbers of step i, from the keys the method uses."""
    key = jax.random.fold_in(tiny.step_key(i), 2)
    ranks = jax.random.uniform(jax.random.fold_in(key, 0), (sum(WIDTHS),))
    chances = jax.random.uniform(jax.random.fold_in(key, 1), (len(NAMES),))
    return ranks, chances


def oracle_run(hyper, first, learners, data):
    """The oracle's own trajectory; of JAX's it sees the freshly drawn columns only."""
    init, update, settings = OPTIMIZERS[hyper.optimizer]
    optimizer = partial(update, step_size=hyper.step_size, **settings)
    params = first.net.params
    done = oracle.Step(params, init(params), init_state(params), 0.0, {}, {})
    ranks, chances = jax.tree.map(
        np.asarray, jax.vmap(draws)(np.arange(STEPS, dtype=np.int32))
    )
    for i in range(STEPS):
        after = tiny.at(learners, i).net.params
        done = oracle.step(
            done.params,
            done.opt_state,
            done.state,
            data.x[i],
            data.y[i],
            optimizer=optimizer,
            fresh={name: after[name]["kernel"] for name in NAMES},
            uniform=dict(zip(NAMES, chances[i], strict=True)),
            random_utility=dict(
                zip(NAMES, np.split(ranks[i], np.cumsum(WIDTHS)[:-1]), strict=True)
            ),
            **options_of(hyper),
        )
        yield done


def stacked(steps):
    """The oracle's trajectory in float32, laid out as the JAX learners are."""

    def joined(per_layer):
        return np.concatenate([np.atleast_1d(per_layer[name]) for name in NAMES])

    rows = [
        {
            "params": done.params,
            "opt": done.opt_state,
            "loss": done.loss,
            "age": joined(done.state.age),
            "activation": joined(done.state.mean_activation),
            "utility": joined(done.state.utility),
            "owed": joined(done.state.accumulator),
            "replaced": joined(done.replaced),
        }
        for done in steps
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float32), *rows)


@pytest.mark.parametrize("name", CASES)
def test_200_steps_as_the_oracle(name):
    hyper = hyper_of(CASES[name])
    method = continual_backprop.make(NET, tiny.SPEC, hyper)
    data = tiny.batches(STEPS)
    first, learners, signals = tiny.run(method, data)
    expected = stacked(oracle_run(hyper, first, learners, data))
    own = learners.extra["transform_0"]
    per_layer = np.split(expected["replaced"].sum(axis=0), np.cumsum(WIDTHS)[:-1])
    assert min(hits.sum() for hits in per_layer) >= 3
    np.testing.assert_array_equal(own.age, expected["age"])
    assert (own.age[expected["replaced"] == 1] == 0).all()
    close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)
    close(own.owed, expected["owed"])
    close(own.activation, expected["activation"])
    close(own.utility, expected["utility"], rtol=1e-4)  # |h - f-hat| cancels
    close(signals.loss, expected["loss"])
    close(learners.net.params, expected["params"])
    close(tiny.moments(learners.opt), expected["opt"])
