"""The conformance suite over every built-in component and every fixture.

A new component is found by its file name; give it a row below where its defaults are
too large, too slow or do nothing on the suite's small problem.
"""

import importlib
from typing import Any

import pytest

from cl_bench import registry, testing
from cl_bench.losses import squared_error
from cl_bench.methods import backprop, continual_backprop, l2
from cl_bench.networks import mlp
from cl_bench.streams import permuted
from tests.fixtures import batch_norm, bit_flipping, class_incremental, sparse_edges

IMAGES = {"size": 4, "classes": 3, "train": 24, "test": 7}
SMALL_STREAM = {
    "dataset": "synthetic", "dataset_options": IMAGES, "num_tasks": 3, "batch_size": 4,
}  # fmt: skip

METHODS: dict[str, dict[str, Any]] = {  # settings under which a method does something
    "continual_backprop": {"replacement_rate": 0.1, "maturity_threshold": 5},
    "shrink_perturb": {"shrink": 0.01, "noise_std": 0.01},
    "l2": {"strength": 0.01},
    "redo": {"threshold": 0.5, "period": 2},
    "grama": {"threshold": 0.5, "period": 2},
    "snr": {"min_threshold": 4.0, "max_threshold": 16, "period": 20},
    "last_layers_reset": {"period": 7},
    "hare_tortoise": {"slow_momentum": 0.9, "period": 1},
    "soft_shrink_perturb": {"shrink": 0.01},
    "weight_clipping": {"zeta": 0.9},
    "gpm": {"bias": "train", "examples": 8},
    "ogd": {"examples": 8},
    "inflora": {"rank": 3, "examples": 8},
    "ewc": {"strength": 1.0},
    "experience_replay": {"capacity": 12},
    "naive_rehearsal": {"capacity": 12},
    "der": {"capacity": 12},
    "der_plus_plus": {"capacity": 12},
    "agem": {"memory_per_task": 5, "reference_batch_size": 6},
    "gem": {"memory_per_task": 5},
    "dgr": {"decoder": "gaussian", "generator_hidden": (8,), "latent": 2},
}
METHOD_NETWORKS: dict[str, dict[str, Any]] = {  # what a method needs of its network
    "nap": {"norm": "layer", "spare_units": 2},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("gem", {"sharing": "so_far", "capacity": 12, "rehearse": True}),
    ("backprop", {"optimizer": "adamw", "weight_decay": 0.1}),
    ("shrink_perturb", {"variant": "kumar", "noise_std": 0.01}),
    ("shrink_perturb", {"variant": "upgd", "noise": "pooled", "noise_std": 0.01}),
    (
        "continual_backprop",
        {
            "variant": "arxiv", "compensate_bias": True, "accumulate": False,
            "optimizer": "aged_adam", "moment_reset": "moments+count",
            "max_replaced": 2, "replacement_rate": 0.1, "maturity_threshold": 5,
        },
    ),
    (
        "redo",
        {
            "statistics": "average", "source": "initial", "optimizer": "adam",
            "threshold": 0.5, "period": 5,
        },
    ),
    ("grama", {"optimizer": "adam", "threshold": 0.5, "period": 5}),
    (
        "snr",
        {
            "optimizer": "aged_adam", "moment_reset": "moments+count",
            "min_threshold": 4.0, "max_threshold": 16, "period": 20,
        },
    ),
    ("last_layers_reset", {"optimizer": "adam", "layers": 2, "period": 7}),
    ("l2_init", {"norm": "l1", "strength": 0.001, "affine": True}),
    ("l2_init", {"convention": "paper", "optimizer": "adam"}),
    ("l2_init", {"norm": "huber", "reference": "resampled"}),
    ("upgd", {"scope": "local", "ada": True, "noise": "pooled", "step_size": 0.001}),
    ("trac", {"optimizer": "sgd"}),
    ("hare_tortoise", {"slow_momentum": 0.9, "period": 1, "evaluate": "tortoise"}),
    (
        "experience_replay",
        {"policy": "class_balanced", "weighting": "half", "capacity": 8},
    ),
    (
        "ewc",
        {
            "mode": "online", "gamma": 0.5, "estimator": "sampled",
            "fisher_examples": 10, "normalise": "trace", "optimizer": "adam",
        },
    ),
    ("ewc", {"estimator": "batched", "strength": 1.0}),
    ("si", {"clamp": True, "optimizer": "adam"}),
    ("mas", {"estimator": "batched", "importance_examples": 7}),
    ("l2_previous", {"mode": "separate", "strength": 1.0}),
    (
        "ncl",
        {
            "estimator": "sampled", "fisher_examples": 10, "data_size": 50.0,
            "precondition": False, "damping": 0.1, "optimizer": "adam",
        },
    ),
    (
        "lora",
        {
            "layers": "hidden", "train_head": True, "train_bias": True,
            "optimizer": "adam", "scaling": "by_rank", "merge_scale": 0.5,
        },
    ),
    ("lwf", {"weighting": "van_de_ven", "student": "in_play", "optimizer": "adam"}),
    ("packnet", {"split": "even", "head": "pack", "optimizer": "adam"}),
    ("hat", {"head": "protect", "optimizer": "adam", "step_size": 0.01}),
    ("frozen_features", {"features": "random"}),
    ("progressive", {"laterals": "adapter", "optimizer": "adam", "step_size": 0.01}),
    (
        "dgr",
        {
            "targets": "soft", "decoder": "gaussian", "generator_hidden": (6, 5),
            "latent": 2, "optimizer": "adam", "replay_batch_size": 3,
        },
    ),
    ("bgd", {"gradients": "mean", "noise": "pooled", "monte_carlo": 2}),
]  # fmt: skip
STREAMS: dict[str, dict[str, Any]] = {
    "permuted": SMALL_STREAM,
    "transformed": {**SMALL_STREAM, "pad": 1},
    "split_classes": SMALL_STREAM | {"classes_per_task": 1, "fit_per_class": 2},
    "stationary": SMALL_STREAM,
    "class_pairs": SMALL_STREAM | {
        "epochs": 2, "train_per_class": 5, "test_per_class": 2, "fit_per_class": 2,
        "tune_per_class": 1, "offers": ("boundaries", "validation"),
    },
    "random_label": SMALL_STREAM | {"epochs": 2, "examples": 12},
    "label_permuted": SMALL_STREAM | {"steps_per_task": 6, "fit_examples": 4},
    "bit_flipping": {"num_tasks": 4, "steps_per_task": 40, "batch_size": 4},
    "five_plus_one": SMALL_STREAM | {
        "hard_classes": 1, "easy_classes": 1, "steps_per_task": 6,
        "train_per_class": None,
    },
    "class_incremental": SMALL_STREAM | {
        "classes_per_task": 1, "epochs": 2, "fit_per_class": 2, "crop_padding": 2,
    },
    "warm_start": SMALL_STREAM | {
        "preset": "hare_tortoise", "chunks": (0.3, 0.3, 0.4),
        "label_noise": (0.5, 0.2, 0.0), "epochs": 2, "fit_examples": 4,
    },
}  # fmt: skip
IMAGE_SPEC = testing.tiny_stream().spec._replace(input_shape=(6, 6, 1))
NETWORKS: dict[str, dict[str, Any]] = {  # those that need images or are large
    "cnn": {"spec": IMAGE_SPEC, "channels": (4,), "kernels": (3,), "dense": (5,)},
    "resnet18": {"spec": IMAGE_SPEC, "width": 2},
}
FIXTURES = {
    "streams": ("bit_flipping", "class_incremental", "unequal_tasks"),
    "networks": ("batch_norm", "sparse_edges"),
    "methods": (
        "boundary_blind", "exact_fisher", "grow_units", "recorder", "reservoir",
        "slow_copy", "task_gates",
    ),
}  # fmt: skip


def load(kind, name):
    """A built-in component, or a fixture as a user's own: by its dotted path."""
    if name in FIXTURES.get(kind, ()) and name not in registry.names(kind):
        name = f"tests.fixtures.{name}"
    return registry.load(kind, name)


def all_of(kind):
    fixtures = (f"tests.fixtures.{name}" for name in FIXTURES.get(kind, ()))
    return (*registry.names(kind), *fixtures)  # a fixture may share a built-in's name


@pytest.mark.parametrize("name", all_of("streams"))
def test_stream(name):
    testing.check_stream(load("streams", name), **STREAMS.get(name, {}))


def test_a_stream_that_keeps_examples_back():
    held = {"fit_examples": 4, "tune_examples": 4, "held_out_batch": 3}
    options = {**SMALL_STREAM, **held, "offers": ("validation", "boundaries")}
    testing.check_stream(permuted, **options)


@pytest.mark.parametrize("name", all_of("networks"))
def test_network(name):
    testing.check_network(load("networks", name), **NETWORKS.get(name, {}))


@pytest.mark.parametrize("init", ["lecun", "pytorch"])
def test_network_with_another_initialiser(init):
    testing.check_network(mlp, init=init, activation="tanh", spare_units=1)


def test_network_without_hidden_layers_for_a_regression():
    spec = testing.tiny_stream().spec._replace(loss=squared_error, num_outputs=2)
    testing.check_network(mlp, spec, widths=())


@pytest.mark.parametrize("name", all_of("methods"))
def test_method(name):
    module = load("methods", name)
    net = None
    if name in METHOD_NETWORKS:
        spec = testing.tiny_stream(frozenset(module.NEEDS)).spec
        net = mlp.make(spec, widths=(7, 5), **METHOD_NETWORKS[name])
    testing.check_method(module, net, hyper=module.Hyper(**METHODS.get(name, {})))


@pytest.mark.parametrize(
    ("name", "settings"),
    VARIANTS,
    ids=[f"{n}-{i}" for i, (n, _) in enumerate(VARIANTS)],
)
def test_method_in_another_variant(name, settings):
    module = load("methods", name)
    testing.check_method(module, hyper=module.Hyper(**settings))


@pytest.mark.parametrize(
    ("method", "network", "stream"),
    [
        (continual_backprop, batch_norm, testing.tiny_stream()),
        (l2, sparse_edges, class_incremental.make()),
        (backprop, mlp, bit_flipping.make()),
        (importlib.import_module("tests.fixtures.reservoir"), mlp, bit_flipping.make()),
    ],
    ids=["statistics", "growing head", "regression", "replay of real targets"],
)
def test_method_on_another_network_and_stream(method, network, stream):
    net = network.make(stream.spec, widths=(5,))
    testing.check_method(method, net=net, stream=stream)


@pytest.mark.parametrize("name", registry.names("metrics"))
def test_metric(name):
    testing.check_metric(load("metrics", name))
