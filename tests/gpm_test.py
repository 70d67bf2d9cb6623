"""Gradient projection memory: the oracle, its limits, what it and OGD refuse."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.losses import squared_error
from cl_bench.methods import _subspace, backprop, gpm, ogd
from cl_bench.networks import cnn, mlp
from cl_bench.types import Clock
from tests import task_run, tiny
from tests.reference import gpm as oracle_gpm
from tests.reference import mlp as oracle_mlp
from tests.task_run import DATA, NET, SPEC, STEPS, TASKS, close, compare, first, sgd


def low_rank(data, rank=3, seed=1):
    """Inputs of each task in a subspace of its own, so that a memory leaves room."""
    rng = np.random.default_rng(seed)
    for task in range(TASKS):
        basis = rng.normal(size=(rank, tiny.INPUTS))
        data.x[task] = (data.x[task][..., :rank] @ basis).astype(np.float32)
    return data


LOW = low_rank(task_run.data())


GPM_CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "other thresholds": {
        "threshold": 0.8, "input_threshold": 0.9, "threshold_growth": 0.03,
        "examples": 10, "bias": "train",
    },
    "free head": {"head": "train", "examples": 1000},
}  # fmt: skip


@pytest.mark.parametrize("name", GPM_CASES)
def test_gpm_steps_beside_the_oracle(name):
    settings: dict[str, Any] = {"step_size": 0.05, "examples": 30} | GPM_CASES[name]
    hyper = gpm.Hyper(**settings)
    method = gpm.make(NET, SPEC, hyper)
    tasks = task_run.run(method, LOW)
    params, expected = first(method), []
    bases = oracle_gpm.init(params)
    if hyper.head == "train":
        del bases["head"]
    for task in range(TASKS):
        for i in range(STEPS):
            x, y = LOW.x[task, i], LOW.y[task, i]
            grads = oracle_mlp.loss_and_grads(params, x, y)[2]
            frozen = task > 0 and hyper.bias == "freeze_after_first"
            grads = oracle_gpm.project(grads, bases, frozen)
            params = sgd(params, grads, hyper.step_size)
            expected.append(params)
        x = LOW.x[task].reshape(-1, tiny.INPUTS)[: hyper.examples]
        grown = hyper.threshold_growth * task
        epsilons = {
            layer: grown + (hyper.input_threshold if layer == "h1" else hyper.threshold)
            for layer in bases
        }
        bases = oracle_gpm.update(bases, params, x, epsilons)
        held = tasks[task].end.extra["projections"]
        for layer, basis in bases.items():
            chex.assert_trees_all_close(
                held[layer], np.float32(basis @ basis.T), rtol=1e-4, atol=1e-4
            )
    compare(tasks, expected)
    sizes = {layer: basis.shape[1] for layer, basis in bases.items()}
    assert 3 <= sizes["h1"] < 12  # the memory holds something, and not everything


def test_gpm_keeps_old_answers_where_all_energy_is_held():
    """Threshold 1, the whole task stored: what task 1 was answered stays."""
    hyper = gpm.Hyper(step_size=0.05, threshold=1.0, input_threshold=1.0, examples=1000)
    tasks = task_run.run(gpm.make(NET, SPEC, hyper), LOW)
    x = LOW.x[0].reshape(-1, tiny.INPUTS)
    answers = [
        NET.apply(t.end.net, x, train=False, key=None)[0] for t in (tasks[0], tasks[2])
    ]
    chex.assert_trees_all_close(*answers, rtol=1e-3, atol=1e-3)
    moved = tasks[2].end.net.params["h1"]["kernel"]
    assert np.max(np.abs(moved - tasks[0].end.net.params["h1"]["kernel"])) > 1e-2


def test_gpm_threshold_1_freezes_kernels_whose_inputs_span_everything():
    net = mlp.make(SPEC, widths=())
    hyper = gpm.Hyper(input_threshold=1.0, examples=1000, step_size=0.5)
    tasks = task_run.run(gpm.make(net, SPEC, hyper), DATA)
    chex.assert_trees_all_close(
        tasks[2].end.net.params, tasks[0].end.net.params, rtol=1e-4, atol=1e-4
    )


def test_gpm_threshold_0_is_fine_tuning():
    hyper = gpm.Hyper(step_size=0.05, **gpm.NEUTRAL)
    plain = backprop.make(NET, SPEC, backprop.Hyper(step_size=0.05))
    chex.assert_trees_all_close(
        task_run.run(gpm.make(NET, SPEC, hyper), DATA)[-1].end.net.params,
        task_run.run(plain, DATA)[-1].end.net.params,
        rtol=1e-6, atol=1e-7,
    )  # fmt: skip


NETWORKS = [
    {}, {"activation": "crelu"}, {"activation": "fourier", "dropout": 0.3},
    {"norm": "batch"}, {"norm": "layer", "spare_units": 2},
    {"norm": "online", "input_norm": "ema", "activation": "prelu"},
    {"activation": "adalin_tanh", "dropout": 0.2, "spare_units": 1}, {"widths": ()},
]  # fmt: skip


@pytest.mark.parametrize("how", ["by gradients", "by inputs", "edges"])
@pytest.mark.parametrize("options", NETWORKS, ids=repr)
def test_gpm_projects_the_gradient_of_backprop_in_any_network(options, how):
    spec = SPEC._replace(batch_size=100 if how == "by gradients" else 2)
    net = mlp.make(spec, **{"widths": (8, 6), **options})
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.batches(1), 0))
    clock = Clock(jnp.int32(3), jnp.int32(1), jnp.int32(3))
    method = gpm.make(net, spec, gpm.Hyper(bias="train"))
    learner, rng = method.init(tiny.KEY), np.random.default_rng(0)
    projections = {}
    for name, zeros in learner.extra["projections"].items():
        basis = np.linalg.qr(rng.normal(size=(len(zeros), 3)))[0]
        projections[name] = jnp.asarray(basis @ basis.T, jnp.float32)
    state, edges = learner.net, {}
    if how == "edges":
        for name, layer in state.params.items():
            edges[name] = jnp.asarray(rng.random(layer["kernel"].shape) < 0.6)
        state = state._replace(edges=edges)
    learner = learner._replace(net=state, extra={"projections": projections})
    after, found = method.step(tiny.step_key(0), clock, batch, learner)

    plain = backprop.make(net, spec, backprop.Hyper())
    other, expected = plain.step(
        tiny.step_key(0), clock, batch, plain.init(tiny.KEY)._replace(net=state)
    )
    grads = dict(expected.grads)
    for name, p in projections.items():
        kernel = grads[name]["kernel"]
        kernel = np.where(edges.get(name, True), kernel - p @ kernel, 0.0)
        grads[name] = {**grads[name], "kernel": kernel}
    chex.assert_trees_all_close(found.grads, grads, atol=1e-6)
    chex.assert_trees_all_equal(found.logits, expected.logits)
    chex.assert_trees_all_equal(after.net.stats, other.net.stats)


def test_gpm_leaves_a_head_with_outputs_of_its_own():
    spec = task_run.spec(scenario="task", own_outputs=True, num_outputs=6)
    net = mlp.make(spec, widths=(8, 6))
    data = task_run.data(per_task=2)
    hyper = gpm.Hyper(threshold=1.0, input_threshold=1.0, examples=1000, step_size=0.1)
    tasks = task_run.run(gpm.make(net, spec, hyper), data)
    assert sorted(tasks[0].end.extra["projections"]) == ["h1", "h2"]
    before, after = (tasks[i].end.net.params for i in (0, 1))
    assert np.max(np.abs(after["head"]["bias"] - before["head"]["bias"])) > 1e-3
    chex.assert_trees_all_equal(after["h2"]["bias"], before["h2"]["bias"])


def test_growing_stops_at_the_threshold():
    """Inputs e1 twice, e2 once: e1 holds 0.8 of the energy of 2 e1 and e2."""
    inputs = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for threshold, rank in ((0.0, 0), (0.79, 1), (0.81, 2), (1.0, 2)):
        p = _subspace.grow(jnp.zeros((3, 3)), inputs, threshold)
        close(p, np.diag([1.0, 1.0, 0.0][:rank] + [0.0] * (3 - rank)).astype("f4"))
    p = _subspace.grow(jnp.diag(jnp.array([0.0, 1.0, 0.0])), inputs, 0.19)
    close(p, np.diag([0.0, 1.0, 0.0]).astype("f4"))  # what is held already counts


def test_convolutions_and_regressions_are_refused():
    images = SPEC._replace(input_shape=(6, 6, 1))
    net = cnn.make(images, channels=(4,), kernels=(3,), dense=(5,))
    with pytest.raises(ValueError, match="gpm works on dense layers and 'c1'"):
        gpm.make(net, images, gpm.Hyper())
    regression = task_run.spec(loss=squared_error)
    with pytest.raises(ValueError, match="is a regression"):
        ogd.make(NET, regression, ogd.Hyper())


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (gpm, {"bias": "freeze"}, "freeze_after_first, train"),
        (gpm, {"head": "free"}, "auto, project, train"),
        (gpm, {"examples": 0}, "at least 1"),
        (ogd, {"examples": 0}, "at least 1"),
    ],
)
def test_options_that_do_not_exist_are_refused(module, settings, message):
    with pytest.raises(ValueError, match=message):
        module.make(NET, SPEC, module.Hyper(**settings))
