"""The networks and the settings that the methods with resets refuse."""

from typing import Any

import pytest

from cl_bench import registry
from cl_bench.methods import (
    continual_backprop,
    dash,
    fire,
    full_reset,
    grama,
    hare_tortoise,
    head_reset,
    last_layers_reset,
    redo,
    snr,
)
from cl_bench.networks import mlp, resnet18
from tests import tiny


@pytest.mark.parametrize("name", ["redo", "grama", "snr", "fire", "continual_backprop"])
def test_a_network_without_hidden_layers_is_refused(name):
    module: Any = registry.load("methods", name)
    net = mlp.make(tiny.SPEC, widths=())
    with pytest.raises(ValueError, match=f"{name} needs a hidden layer"):
        module.make(net, tiny.SPEC, module.Hyper())


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (redo, {"statistics": "mean"}, "statistics='mean' is none of batch, average"),
        (redo, {"source": "first"}, "source='first' is none of fresh, initial"),
        (redo, {"moment_reset": "all"}, "moment_reset='all' is none of none, moments"),
        (
            redo,
            {"moment_reset": "moments+count"},
            "'aged_adam' or 'adam_gnt', not 'sgd'",
        ),
        (redo, {"period": 0}, "period=0: at least 1 step"),
        (grama, {"statistics": "mean"}, "statistics='mean' is none of"),
        (grama, {"period": -1}, "period=-1: at least 1 step"),
        (snr, {"moment_reset": "all"}, "moment_reset='all' is none of none, moments"),
        (
            snr,
            {"moment_reset": "moments+count", "optimizer": "adam"},
            "'aged_adam' or 'adam_gnt', not 'adam'",
        ),
        (snr, {"max_threshold": 0}, "max_threshold=0: at least 1 example"),
        (snr, {"period": 0}, "period=0: at least 1 step"),
        (last_layers_reset, {"period": 0}, "period=0: at least 1 step"),
        (last_layers_reset, {"layers": 0}, "layers=0: the network has 3 layers"),
        (last_layers_reset, {"layers": 4}, "layers=4: the network has 3 layers"),
        (hare_tortoise, {"evaluate": "fox"}, "evaluate='fox' is none of hare, tortois"),
        (hare_tortoise, {"period": 0}, "period=0: at least 1 epoch"),
        (fire, {"iterations": 0}, "iterations=0: at least 1"),
        (full_reset, {"every": 0}, "every=0: at least 1 task"),
        (head_reset, {"every": -1}, "every=-1: at least 1 task"),
    ],
)
def test_settings_that_cannot_be_are_refused(module, settings, message):
    net = mlp.make(tiny.SPEC, widths=(5, 4))
    with pytest.raises(ValueError, match=message):
        module.make(net, tiny.SPEC, module.Hyper(**settings))


@pytest.mark.parametrize("activation", ["crelu", "fourier"])
def test_bias_compensation_takes_units_of_one_output(activation):
    net = mlp.make(tiny.SPEC, widths=(5, 4), activation=activation)
    with pytest.raises(ValueError, match="'h1'.*compensate_bias=False works"):
        hyper = continual_backprop.Hyper(variant="arxiv")
        continual_backprop.make(net, tiny.SPEC, hyper)
    hyper = continual_backprop.Hyper(variant="arxiv", compensate_bias=False)
    continual_backprop.make(net, tiny.SPEC, hyper)


def test_bias_compensation_takes_readers_of_one_activation():
    spec = tiny.SPEC._replace(input_shape=(5, 5, 2))
    net = resnet18.make(spec, width=2)
    with pytest.raises(ValueError, match="residual stream.*compensate_bias=False wor"):
        continual_backprop.make(
            net, spec, continual_backprop.Hyper(compensate_bias=True)
        )


@pytest.mark.parametrize("module", [redo, grama])
def test_statistics_of_one_example_are_refused(module):
    spec = tiny.SPEC._replace(batch_size=1)
    net = mlp.make(spec, widths=(5, 4))
    with pytest.raises(ValueError, match="batch_size=1 .*statistics='average'"):
        module.make(net, spec, module.Hyper())
    module.make(net, spec, module.Hyper(statistics="average"))


def test_dash_needs_gradients_at_the_boundary():
    spec = tiny.SPEC._replace(reset_head=True)
    net = mlp.make(spec, widths=(5, 4))
    with pytest.raises(ValueError, match="resets the head.*reset_head=False"):
        dash.make(net, spec, dash.Hyper())


def test_dash_averages_with_a_weight_of_one_at_most():
    with pytest.raises(ValueError, match="alpha=1.5.*from 0 to 1"):
        dash.check(dash.Hyper(alpha=1.5))
