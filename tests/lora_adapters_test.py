"""LoRA's adapters: how they start, full rank, the schedule, convolutions, bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.losses import squared_error
from cl_bench.methods import _adapters, backprop, lora
from cl_bench.networks import cnn, mlp
from tests import task_run, tiny
from tests.task_run import DATA, NET, SPEC, close


def no_batches(i):
    raise AssertionError("lora reads no training batches at a boundary")


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
