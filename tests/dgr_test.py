"""Deep generative replay: the oracle in each scenario, its limits, bad input."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.losses import squared_error
from cl_bench.methods import backprop, dgr
from cl_bench.methods._compose import AFTER_KEY, LOSS_KEY
from cl_bench.networks import mlp
from tests import task_run, tiny
from tests.reference import dgr as oracle
from tests.reference import logits as by_logits
from tests.reference import mlp as oracle_mlp
from tests.reference import vae as oracle_vae
from tests.task_run import STEPS, TASKS

close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=5e-6)
SMALL = {
    "step_size": 0.1, "generator_step_size": 0.5, "generator_hidden": (7, 6),
    "latent": 3, "replay_batch_size": 5,
}  # fmt: skip


def problem(scenario):
    """Inputs in (0, 1); each task has two outputs of its own, one example no weight."""
    data = task_run.data(per_task=2)
    owner, task = np.arange(6) // 2, np.arange(TASKS)[:, None, None, None]
    weight = data.weight.copy()
    weight[:, ::4, 2] = 0.0
    data = data._replace(x=oracle_mlp.sigmoid(data.x).astype(np.float32), weight=weight)
    if scenario == "class":
        seen = np.broadcast_to(owner <= task, data.classes.shape)
        return data._replace(classes=np.array(seen))
    if scenario == "domain":
        return data._replace(classes=np.ones_like(data.classes))
    return data


def setting(scenario):
    own = scenario != "domain"
    spec = task_run.spec(scenario=scenario, num_outputs=6, own_outputs=own)
    return spec, mlp.make(spec, widths=(8, 6)), problem(scenario)


def sets_of(scenario, task):
    """Old outputs, and those that the network's probabilities are over."""
    owner = np.arange(6) // 2
    if scenario == "task":
        old = [owner == s for s in range(task)]
        return old, old
    if scenario == "class":
        return [owner < task], [owner <= task]
    return [np.ones(6, bool)], [np.ones(6, bool)]


def draws(hyper):
    """All normal numbers of every step: of the network's z, then of the generator's."""
    n, own = hyper.replay_batch_size, tiny.BATCH

    def of_step(i):
        key = tiny.step_key(i)
        loss, after = (jax.random.fold_in(key, k) for k in (LOSS_KEY, AFTER_KEY))
        keys = [jax.random.fold_in(loss, 0)]
        keys += [jax.random.fold_in(after, k) for k in range(3)]
        return [
            jax.random.normal(k, (rows, hyper.latent))
            for k, rows in zip(keys, (n, own, n, n), strict=True)
        ]

    every = tiny.quick_jit(lambda steps: jax.lax.map(of_step, steps))
    return [np.asarray(d, np.float64) for d in every(jnp.arange(TASKS * STEPS))]


def descend(params, grads, step_size):
    return oracle_mlp.map_params(lambda p, g: p - step_size * g, params, grads)


def network_gradient(params, old, data, task, i, z, scenario, hyper):
    at = task, i
    x, y, classes = data.x[at], data.y[at], data.classes[at]
    kept = data.weight[at] > 0
    grads = by_logits.masked_cross_entropy(params, x[kept], y[kept], classes[kept])
    if task == 0:
        return grads
    drawn = oracle_vae.sample(old["generator"], z, hyper.decoder)
    replayed = oracle.replayed_gradient(
        params, old["network"], drawn, *sets_of(scenario, task),
        hyper.targets, hyper.temperature,
    )  # fmt: skip
    return oracle.mix(grads, replayed, task, hyper.replay_weight)


def generator_gradient(params, old, data, task, i, eps, z, old_eps, hyper):
    x, weight = data.x[task, i], data.weight[task, i]
    share = weight / weight.sum() / x.shape[1]
    grads = oracle_vae.gradient(params, x, eps, share, hyper.decoder)
    if task == 0:
        return grads
    drawn = oracle_vae.sample(old["generator"], z, hyper.decoder)
    share = np.full(len(drawn), 1 / drawn.size)
    replayed = oracle_vae.gradient(params, drawn, old_eps, share, hyper.decoder)
    return oracle.mix(grads, replayed, task, hyper.replay_weight)


@pytest.mark.parametrize(
    ("scenario", "settings"),
    [
        ("task", {}),
        ("task", {"targets": "soft", "replay_weight": 0.5}),
        ("class", {"replay_weight": 2.0}),
        ("domain", {"targets": "soft", "decoder": "gaussian", "temperature": 1.0}),
    ],
)
def test_three_tasks_step_beside_the_oracle(scenario, settings):
    spec, net, data = setting(scenario)
    hyper = dgr.Hyper(**SMALL, **settings)
    method = dgr.make(net, spec, hyper)
    first, numbers = method.init(tiny.KEY), draws(hyper)
    network = oracle_mlp.cast(first.net.params)
    generator = oracle_mlp.cast(first.extra["generator"])
    old = {}
    for task, found in enumerate(task_run.run(method, data)):
        for i, learner in enumerate(found.steps):
            z, eps, new_z, old_eps = (d[task * STEPS + i] for d in numbers)
            moved = network_gradient(network, old, data, task, i, z, scenario, hyper)
            drawn = generator_gradient(
                generator, old, data, task, i, eps, new_z, old_eps, hyper
            )
            network = descend(network, moved, hyper.step_size)
            generator = descend(generator, drawn, hyper.generator_step_size)
            close(learner.net.params, jax.tree.map(np.float32, network))
            close(learner.extra["generator"], jax.tree.map(np.float32, generator))
        old = {"network": network, "generator": generator}


def test_the_first_task_is_training_alone():
    spec, net, data = setting("class")
    found = task_run.run(dgr.make(net, spec, dgr.Hyper(**SMALL)), data)
    plain = backprop.make(net, spec, backprop.Hyper(step_size=0.1))
    alone = task_run.run(plain, data)
    chex.assert_trees_all_close(
        found[0].end.net.params, alone[0].end.net.params, rtol=1e-6, atol=1e-7
    )
    moved = jax.tree.map(
        lambda a, b: np.max(np.abs(a - b)),
        found[1].end.net.params, alone[1].end.net.params,
    )  # fmt: skip
    assert max(jax.tree.leaves(moved)) > 1e-3  # and the second is not


def test_without_weight_it_is_backprop():
    spec, net, data = setting("task")
    hyper = dgr.Hyper(**SMALL, replay_weight=0.0)
    found = task_run.run(dgr.make(net, spec, hyper), data)
    plain = backprop.make(net, spec, backprop.Hyper(step_size=0.1))
    chex.assert_trees_all_close(
        found[-1].end.net.params,
        task_run.run(plain, data)[-1].end.net.params,
        rtol=1e-6, atol=1e-7,
    )  # fmt: skip


def test_the_replayed_loss_by_hand():
    """Teacher's logits 0, ln 3 of the first set: hard 1, soft (1/4, 3/4); the second
    set is empty. The student is indifferent: p = 1/2, and 1/3 with a third shown.
    """
    teacher = jnp.array([[0.0, np.log(3.0), 9.0]])
    student = jnp.zeros((1, 3))
    sets = jnp.array([[True, True, False], [False, False, False]])
    wide = jnp.ones((2, 3), bool)
    for targets in dgr.TARGETS:
        hyper = dgr.Hyper(targets=targets, temperature=1.0)
        found = dgr.replay_loss(hyper, student, teacher, sets, sets)
        close(found, np.float32(np.log(2.0)))
        found = dgr.replay_loss(hyper, student, teacher, sets, wide)
        close(found, np.float32(np.log(3.0)))
    skewed = jnp.array([[np.log(2.0), 0.0, 0.0]])  # p = 2/3, 1/3
    hard = dgr.replay_loss(dgr.Hyper(), skewed, teacher, sets, sets)
    close(hard, np.float32(np.log(3.0)))


def test_an_input_out_of_range_is_not_trained_on():
    """It is recorded as diverged, from the second task on."""
    spec, net, data = setting("task")
    data.x[0, 3, 0, 0] = 2.0
    found = task_run.run(dgr.make(net, spec, dgr.Hyper(**SMALL)), data)
    assert np.all(np.isfinite(found[0].end.net.params["head"]["kernel"]))
    assert np.all(np.isnan(found[1].end.net.params["head"]["kernel"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": "both"}, "hard, soft"),
        ({"decoder": "poisson"}, "bernoulli, gaussian"),
        ({"latent": 0}, "one unit in each"),
        ({"replay_batch_size": 0}, "the method is backprop"),
    ],
)
def test_options_that_do_not_exist_are_refused(settings, message):
    spec, net, _ = setting("task")
    with pytest.raises(ValueError, match=message):
        dgr.make(net, spec, dgr.Hyper(**settings))


def test_a_regression_is_refused():
    spec = task_run.spec(loss=squared_error)
    with pytest.raises(ValueError, match="is a regression"):
        dgr.make(mlp.make(spec), spec, dgr.Hyper())
