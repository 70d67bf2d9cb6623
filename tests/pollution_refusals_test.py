"""Where pollution cannot be measured: methods, settings and networks it refuses."""

import pytest

from cl_bench import components, registry
from cl_bench.fields import ConfigError
from cl_bench.metrics import pollution
from cl_bench.networks import cnn, mlp
from cl_bench.streams import split_classes
from tests import tiny

TASKS = 3


def refused(method, **options):
    """The error of a study's arm, before anything is compiled."""
    stream = {"name": "split_classes", "num_tasks": TASKS, "scenario": "task"}
    network = {"name": "mlp", "widths": (4,)}
    metric = {"name": "pollution", **options}
    name = method["name"]
    parts = components.make(stream, network, [metric], name)
    with pytest.raises(ConfigError) as error:
        components.make_method(parts, method)
    return str(error.value)


def test_methods_that_freeze_nothing_have_no_frozen_weights():
    for name in ("backprop", "ewc", "frozen_features"):
        assert "take hat or packnet" in refused({"name": name}, rule="frozen")


@pytest.mark.parametrize("method", [
    {"name": "independent"}, {"name": "progressive"}, {"name": "lora_per_task"},
    {"name": "hare_tortoise", "evaluate": "tortoise"},
])  # fmt: skip
def test_methods_that_answer_with_other_networks_are_refused(method):
    assert f"({method['name']})" in refused(method)
    assert "answers with others" in refused(method)


def test_the_message_names_every_method_that_freezes():
    stream = split_classes.make(scenario="task", num_tasks=TASKS)
    net = mlp.make(stream.spec, widths=(4,))
    found = []
    for name in registry.names("methods"):
        module = registry.load("methods", name)
        try:
            method = module.make(net, stream.spec, module.Hyper())
        except ValueError:  # it asks for a setting that has no default
            continue
        found += [name] * (method.task_weights is not None)
    assert tuple(found) == pollution.FREEZING


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rule": "size"}, "magnitude"),
        ({"fraction": 0.0}, "at most 1"),
        ({"kinds": ("ratio",)}, "literal"),
        ({"minibatches": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        pollution.make(mlp.make(tiny.SPEC), tiny.SPEC, **options)


def test_convolutions_are_refused():
    spec = tiny.SPEC._replace(input_shape=(6, 6, 1))
    net = cnn.make(spec, channels=(2,), kernels=(3,), dense=(4,))
    with pytest.raises(ValueError, match="mlp"):
        pollution.make(net, spec)
