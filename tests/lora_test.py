"""LoRA for continual learning: the oracle, its limits, its options, and bad input."""

from functools import partial
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.losses import squared_error
from cl_bench.methods import _adapters, backprop, lora, lora_per_task
from cl_bench.networks import cnn, mlp
from tests import task_run, tiny
from tests.reference import lora as oracle
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle_optimizers
from tests.task_run import STEPS, TASKS

SPEC = task_run.spec()
NET = mlp.make(SPEC, widths=(8, 6))
DATA = task_run.data()
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=5e-6)

SGD = (oracle_optimizers.init_sgd, oracle_optimizers.sgd)
ADAM = (oracle_optimizers.init_adam, oracle_optimizers.adam)
CASES = {
    "algorithm 1": (SGD, {"init_std": 0.5}),
    "half merged": (SGD, {"merge_scale": 0.5, "alpha": 2.0, "init_std": 0.5}),
    "alpha by rank": (
        ADAM,
        {"alpha": 3.0, "scaling": "by_rank", "rank": 3, "adapter_step_scale": 0.5},
    ),
    "head and biases in full": (
        ADAM,
        {"layers": "hidden", "train_head": True, "train_bias": True},
    ),
    "one layer, optimiser kept": (
        ADAM,
        {"layers": ("h2",), "train_bias": True, "reset_optimizer": False},
    ),
}


def no_batches(i):
    raise AssertionError("lora reads no training batches at a boundary")


def hyper_of(settings, optimizer):
    name = "sgd" if optimizer is SGD else "adam"
    return lora.Hyper(**{"step_size": 0.02, "optimizer": name, "rank": 2} | settings)


def expected_run(hyper, optimizer, first, drawn):
    """The oracle's acting networks: after each step of each task, and merged."""
    init, update = optimizer
    names = {"all": ("h1", "h2", "head"), "hidden": ("h1", "h2")}.get(
        hyper.layers, hyper.layers
    )
    s = oracle.scale(hyper.alpha, hyper.rank, hyper.scaling)
    step = partial(update, step_size=hyper.step_size)
    own_step = partial(update, step_size=hyper.step_size * hyper.adapter_step_scale)

    def trained(module, leaf):
        if module == "head" and hyper.train_head:
            return True
        return leaf == "bias" and hyper.train_bias

    core, found = oracle_mlp.cast(first), []
    states = (init(core), None)
    for task in range(TASKS):
        adapters = oracle.start_adapters({n: drawn[task][n] for n in names})
        if hyper.reset_optimizer:
            states = (init(core), init(adapters))
        elif states[1] is None:
            states = (states[0], init(adapters))
        networks = []
        for i in range(STEPS):
            now = core if task == 0 else oracle.acting(core, adapters, s)
            x, y = DATA.x[task, i], DATA.y[task, i]
            grads = oracle_mlp.loss_and_grads(now, x, y)[2]
            if task == 0:
                core, state = step(core, grads, states[0])
                states = (state, states[1])
                networks.append(core)
            else:
                core, adapters, states = oracle.adapter_step(
                    core, adapters, grads, states, s=s, trained=trained,
                    optimizer=step, own_optimizer=own_step,
                )  # fmt: skip
                networks.append(oracle.acting(core, adapters, s))
        if task > 0:
            core = oracle.merge(core, adapters, s, hyper.merge_scale)
        found.append((networks, core))
    return found


@pytest.mark.parametrize("name", CASES)
def test_three_tasks_step_beside_the_oracle(name):
    optimizer, settings = CASES[name]
    hyper = hyper_of(settings, optimizer)
    method = lora.make(NET, SPEC, hyper)
    tasks = task_run.run(method, DATA)
    drawn = [task.start.extra["lora"]["adapters"] for task in tasks]
    first = method.init(tiny.KEY).net.params
    expected = expected_run(hyper, optimizer, first, drawn)
    for task, (networks, merged) in zip(tasks, expected, strict=True):
        for learner, network in zip(task.steps, networks, strict=True):
            close(learner.net.params, jax.tree.map(np.float32, network))
        close(task.end.net.params, jax.tree.map(np.float32, merged))


def test_a_is_drawn_anew_with_its_deviation_and_b_is_zero():
    hyper = lora.Hyper(rank=4, init_std=0.3)
    net = mlp.make(SPEC, widths=(400, 6))
    learner = lora.make(net, SPEC, hyper).init(tiny.KEY)
    start = lora.make(net, SPEC, hyper).start_task
    made = [
        start(jax.random.fold_in(tiny.KEY, t), tiny.clock(t), no_batches, learner)
        for t in (1, 2)
    ]
    a, b = (m.extra["lora"]["adapters"]["h2"] for m in made)
    assert not np.any(a["b"])
    assert np.any(a["a"] != b["a"])
    assert abs(np.std(a["a"]) - 0.3) < 0.02  # 1600 draws: 4 standard errors
    chex.assert_trees_all_equal(made[0].net.params, learner.net.params)


@pytest.fixture(scope="module")
def default_run():
    method = lora.make(NET, SPEC, lora.Hyper(step_size=0.05, init_std=0.5, rank=2))
    return method, task_run.run(method, DATA)


def test_only_adapters_move_after_the_first_task(default_run):
    _, tasks = default_run
    before = tasks[0].end.net.params
    for task in tasks[1:]:
        core = task.start.extra["lora"]["core"]
        for learner in task.steps:
            chex.assert_trees_all_equal(learner.extra["lora"]["core"], core)
            for name, layer in learner.net.params.items():
                chex.assert_trees_all_equal(layer["bias"], before[name]["bias"])
        change = task.end.net.params["h1"]["kernel"] - core["h1"]
        values = np.linalg.svd(np.asarray(change), compute_uv=False)
        assert values[0] > 1e-3
        assert values[2] < 1e-5 * values[0]  # of rank 2


def test_merging_in_full_changes_no_bit(default_run):
    method, tasks = default_run
    batch = tiny.at(tiny.at(DATA, 0), 0)
    for task in tasks:
        chex.assert_trees_all_equal(task.steps[-1].net, task.end.net)
        chex.assert_trees_all_equal(
            method.predict(task.steps[-1], batch)[0], method.predict(task.end, batch)[0]
        )


def test_a_task_starts_from_the_core(default_run):
    _, tasks = default_run
    for before, after in pairwise(tasks):
        chex.assert_trees_all_equal(before.end.net, after.start.net)


def test_full_rank_with_an_orthogonal_a_makes_the_step_of_full_training():
    """dW = -eta s^2 G A'A: for A'A = I, B = 0 and s = 1 the step of plain SGD."""
    rng = np.random.default_rng(0)
    state = mlp.make(SPEC, widths=()).init(tiny.KEY)
    core = {"head": state.params["head"]["kernel"]}
    gradient = jnp.asarray(rng.normal(size=(12, 4)), jnp.float32)
    a = jnp.asarray(np.linalg.qr(rng.normal(size=(12, 12)))[0], jnp.float32)
    adapters = {"head": {"a": a, "b": jnp.zeros((4, 12))}}
    down = _adapters.gradients({"head": {"kernel": gradient}}, adapters, 1.0)
    moved = jax.tree.map(lambda p, g: p - 0.01 * g, adapters, down)
    after = _adapters.effective(NET, state, core, moved, 1.0).params["head"]["kernel"]
    close(after, core["head"] - 0.01 * gradient)


def test_full_rank_reaches_what_fine_tuning_reaches():
    """A linear regression of 12 inputs and 4 outputs: a change of rank 4, from data.

    Fine-tuning and LoRA of rank 4 find the same weights, the teacher's. Lower ranks end
    at the best change of their rank (Eckart and Young), which is far from it.
    """
    rng = np.random.default_rng(5)
    x, teacher = rng.normal(size=(48, 12)), rng.normal(size=(12, 4))
    spec = SPEC._replace(loss=squared_error)
    net = mlp.make(spec, widths=())
    one = tiny.at(tiny.batches(1, size=48), 0)
    batch = one._replace(x=x.astype(np.float32), y=(x @ teacher).astype(np.float32))
    common = {"step_size": 0.02, "optimizer": "sgd"}

    def reached(module, **settings):
        method = module.make(net, spec, module.Hyper(**common, **settings))
        first = method.init(tiny.KEY)
        learner = task_after_first(method, batch, steps=3000)
        layer = learner.net.params["head"]
        wrong = x @ layer["kernel"] + layer["bias"] - x @ teacher
        return layer["kernel"], np.sum(wrong**2), first.net.params["head"]["kernel"]

    full, error, core = reached(backprop)
    change = x @ (teacher - core)
    values = np.linalg.svd(change - change.mean(0), compute_uv=False)
    assert error < 1e-6 * np.sum(values**2)
    close(full, teacher.astype(np.float32), atol=1e-3)
    for rank in (4, 3, 1):
        settings = {"rank": rank, "init_std": 0.5, "train_bias": True}
        kernel, error, _ = reached(lora, **settings)
        if rank == 4:
            assert error < 1e-6 * np.sum(values**2)
            close(kernel, full, atol=1e-3)
        else:
            assert error == pytest.approx(np.sum(values[rank:] ** 2), rel=0.02)


def task_after_first(method, batch, steps):
    """The learner after so many steps on one batch, in the second task."""
    clock = tiny.clock(20)._replace(task=jnp.int32(1))

    def run():
        learner = method.start_task(tiny.KEY, clock, no_batches, method.init(tiny.KEY))
        step = lambda i, now: method.step(tiny.KEY, clock, batch, now)[0]
        return jax.lax.fori_loop(0, steps, step, learner)

    return jax.tree.map(np.asarray, tiny.quick_jit(run)())


def test_the_schedule_of_a_benchmark_scales_the_adapters_steps_too():
    spec = task_run.spec(step_schedule=((0.0, 0.0),))
    method = lora.make(NET, spec, lora.Hyper(init_std=0.5, train_bias=True))
    learner = method.init(tiny.KEY)
    clock = tiny.clock(25)._replace(task=jnp.int32(1), step_scale=0.0)
    learner = method.start_task(tiny.KEY, clock, no_batches, learner)
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(DATA, 1), 0))
    moved, signals = tiny.quick_jit(method.step)(tiny.KEY, clock, batch, learner)
    chex.assert_trees_all_equal(moved.net, learner.net)
    assert np.any(signals.grads["h1"]["kernel"])


def test_updates_are_what_has_moved(default_run):
    method, tasks = default_run
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(DATA, 1), 1))
    clock = tiny.clock(21)._replace(task=jnp.int32(1))
    before = tasks[1].steps[0]
    after, signals = method.step(tiny.KEY, clock, batch, before)
    expected = jax.tree.map(np.subtract, after.net.params, before.net.params)
    chex.assert_trees_all_equal(signals.updates, expected)


def test_a_convolution_is_a_matrix():
    spec = SPEC._replace(input_shape=(6, 6, 1))
    net = cnn.make(spec, channels=(4,), kernels=(3,), dense=(5,))
    method = lora.make(net, spec, lora.Hyper(rank=3, init_std=0.5))
    learner = method.start_task(
        tiny.KEY, tiny.clock(0), no_batches, method.init(tiny.KEY)
    )
    assert learner.extra["lora"]["adapters"]["c1"]["a"].shape == (3, 9)
    rng = np.random.default_rng(0)
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(DATA, 1), 0))
    batch = batch._replace(x=jnp.asarray(rng.normal(size=(4, 6, 6, 1)), jnp.float32))
    clock = tiny.clock(20)._replace(task=jnp.int32(1))
    moved, _ = tiny.quick_jit(method.step)(tiny.KEY, clock, batch, learner)
    change = moved.net.params["c1"]["kernel"] - learner.net.params["c1"]["kernel"]
    values = np.linalg.svd(np.asarray(change).reshape(9, 4), compute_uv=False)
    assert values[0] > 0
    assert values[3] < 1e-3 * values[2]  # of rank 3


BAD = [
    ({"rank": 5}, "'head' is a 6 x 4 matrix; rank=4 is the largest"),
    ({"rank": 7, "layers": "hidden"}, "rank=6 is the largest"),
    ({"rank": 0}, "rank=0"),
    ({"scaling": "by_alpha"}, "absolute, by_rank"),
    ({"layers": ("h3",)}, "no module 'h3'"),
    ({"layers": "some"}, "none of hidden, all"),
    ({"train_head": True}, "layers='hidden', or train_head=False"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        lora.make(NET, SPEC, lora.Hyper(**settings))


def test_a_linear_network_has_no_hidden_layer_to_adapt():
    with pytest.raises(ValueError, match="no module to adapt"):
        lora.make(mlp.make(SPEC, widths=()), SPEC, lora.Hyper(layers="hidden"))


# ---- an adapter a task


@pytest.fixture(scope="module")
def per_task_run():
    hyper = lora_per_task.Hyper(step_size=0.05, init_std=0.5, rank=2)
    method = lora_per_task.make(NET, SPEC, hyper)
    return method, task_run.run(method, DATA)


def test_no_task_is_forgotten(per_task_run):
    method, tasks = per_task_run
    for t in range(TASKS):
        batch = tiny.at(tiny.at(DATA, t), 0)
        own = method.predict(tasks[t].end, batch)[0]
        plain = NET.apply(tasks[t].end.net, batch.x, train=False, key=None)[0]
        chex.assert_trees_all_equal(own, plain)  # the current network is the one
        close(method.predict(tasks[-1].end, batch)[0], own)
    first, last = (tasks[i].end.net.params["h1"]["kernel"] for i in (0, 2))
    assert np.max(np.abs(first - last)) > 1e-3  # and the tasks did move it


def test_a_task_not_met_yet_is_answered_by_the_core(per_task_run):
    method, tasks = per_task_run
    batch = tiny.at(tiny.at(DATA, 2), 0)
    core = method.predict(tasks[0].end, batch)[0]
    close(method.predict(tasks[1].end, batch)[0], core)
    learned = method.predict(tasks[2].end, batch)[0]
    assert np.max(np.abs(learned - core)) > 1e-3


def test_each_adapter_starts_from_the_core_of_the_first_task(per_task_run):
    _, tasks = per_task_run
    for task in tasks[1:]:
        close(task.start.net.params, tasks[0].end.net.params)


def test_the_second_task_is_lora_s(per_task_run):
    """Until something is merged the two are one method."""
    _, tasks = per_task_run
    method = lora.make(NET, SPEC, lora.Hyper(step_size=0.05, init_std=0.5, rank=2))
    for t, task in enumerate(task_run.run(method, DATA)[:2]):
        close(task.end.net.params, tasks[t].end.net.params)


def test_a_benchmark_that_restores_networks_is_refused():
    with pytest.raises(ValueError, match="puts back the best network"):
        lora_per_task.make(NET, task_run.spec(restore_best=1), lora_per_task.Hyper())
