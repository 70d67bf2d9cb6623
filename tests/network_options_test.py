"""Options of the multi-layer perceptron: contracts, refusals, and a replaced unit."""

import numpy as np
import pytest

from cl_bench import testing, units
from cl_bench.methods import continual_backprop
from cl_bench.networks import mlp
from tests import tiny

OPTIONS = {
    "crelu": {"activation": "crelu"},
    "fourier": {"activation": "fourier", "init": "pytorch"},
    "prelu": {"activation": "prelu"},
    "adalin_relu": {"activation": "adalin_relu"},
    "adalin_tanh": {"activation": "adalin_tanh"},
    "batch": {"norm": "batch"},
    "layer": {"norm": "layer"},
    "online": {"norm": "online"},
    "dropout": {"dropout": 0.5},
    "ema": {"input_norm": "ema"},
    "spare": {"norm": "online", "spare_units": 2},
}
COMBINED = {
    "prelu": {"activation": "prelu", "norm": "batch"},
    "adalin": {"activation": "adalin_tanh", "norm": "layer", "spare_units": 2},
    "crelu": {"activation": "crelu", "norm": "layer", "spare_units": 1},
    "fourier": {
        "activation": "fourier", "norm": "online", "dropout": 0.2, "input_norm": "ema",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu6"}, "activation 'relu6' is none of"),
        ({"init": "he"}, "init 'he' is none of"),
        ({"widths": (0,)}, "too small"),
        ({"spare_units": -1}, "too small"),
        ({"norm": "group"}, "norm 'group' is none of"),
        ({"norm_decays": (0.9, 1.0)}, "below 1"),
        ({"dropout": 1.0}, "dropout 1.0: must"),
        ({"input_norm": "zscore"}, "input_norm 'zscore' is none of"),
        ({"input_decay": 1.0}, "input_decay 1.0: must"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        mlp.make(tiny.SPEC, **options)


@pytest.mark.parametrize("name", COMBINED)
def test_options_keep_the_contract(name):
    testing.check_network(mlp, widths=(5, 4), **COMBINED[name])


def test_a_method_keeps_its_contract_on_all_options_at_once():
    net = mlp.make(testing.tiny_stream().spec, widths=(5,), **COMBINED["fourier"])
    hyper = continual_backprop.Hyper(replacement_rate=0.1, maturity_threshold=5)
    testing.check_method(continual_backprop, net=net, hyper=hyper)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_replaced_unit_starts_anew(name):
    """Continual backprop: what belongs to the unit is neutral, statistics included."""
    net = mlp.make(tiny.SPEC, widths=(8,), **OPTIONS[name])
    hyper = continual_backprop.Hyper(
        step_size=0.05, replacement_rate=0.02, maturity_threshold=2
    )
    method = continual_backprop.make(net, tiny.SPEC, hyper)
    _, learners, signals = tiny.run(method, tiny.batches(25))
    assert np.isfinite(signals.loss).all()
    state, unit = learners.net, net.units[0]
    rows = state.params["head"]["kernel"].reshape(25, unit.repeat, unit.size, -1)
    in_use = state.alive["h1"] if state.alive else np.ones((25, unit.size), bool)
    gone = (rows == 0).all((1, 3)) & in_use
    assert gone.sum() >= 2
    own = {key: v for key, v in state.params["h1"].items() if key != "kernel"}
    kept = {
        **state.stats.get("h1", {}),
        **state.stats.get("backward", {}).get("h1", {}),
    }
    for leaf, value in (own | kept).items():
        neutral = {**units.NEUTRAL_LEAVES, **units.NEUTRAL_STATISTICS}.get(leaf, 0.0)
        assert (value[gone] == neutral).all(), leaf
        if (name, leaf) != ("batch", "bias"):  # a bias under batch norm does nothing
            assert (value[~gone & in_use] != neutral).any(), leaf
