"""What the tests of consolidation share: a run over three tasks, beside an oracle."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.networks import mlp
from cl_bench.types import Batch, Clock
from tests import tiny
from tests.reference import ewc as oracle
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle_optimizers

TASKS, STEPS, EXAMPLES = 3, 20, 12  # a task's examples are its first three minibatches
IN_PLAY = ([0, 1], [2, 3], [0, 1, 2, 3])
SPEC = tiny.SPEC._replace(num_tasks=TASKS, examples_per_task=EXAMPLES)
NET = mlp.make(SPEC, widths=(8, 6), init="pytorch")  # biases that are not 0
HYPER = {"step_size": 0.05, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}
OPTIMIZERS = {
    "sgd": (oracle_optimizers.init_sgd, oracle_optimizers.sgd, {}),
    "momentum": (
        oracle_optimizers.init_momentum, oracle_optimizers.momentum, {"mu": 0.9},
    ),
    "adam": (
        oracle_optimizers.init_adam, oracle_optimizers.adam,
        {"b1": 0.8, "b2": 0.99, "eps": 1e-6},
    ),
}  # fmt: skip
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)


@cache
def data():
    """Batches of all tasks, [tasks, steps, ...]; each task has its outputs in play."""
    tasks = [tiny.batches(STEPS, seed) for seed in range(TASKS)]
    for task, batch in enumerate(tasks):
        allowed = np.array(IN_PLAY[task])
        batch.classes[:] = np.isin(np.arange(tiny.OUTPUTS), allowed)
        batch.y[:] = allowed[batch.y % len(allowed)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *tasks)


def made(module, net=NET, spec=SPEC, **settings):
    return module.make(net, spec, module.Hyper(**{**HYPER, **settings}))


def end_key(task):
    return jax.random.fold_in(tiny.KEY, 1000 + task)


def run(module, net=NET, steps=STEPS, **settings):
    """First learner; learners before and after each end of a task: [tasks, ...] numpy."""
    hyper = module.Hyper(**{**HYPER, **settings})
    hyper = jax.tree.map(jnp.float32, hyper)
    return jax.tree.map(np.asarray, walk(module, net)(hyper, steps, data()))


@cache
def walk(module, net):
    """One program for all strengths, step sizes and numbers of steps."""

    def all_tasks(hyper, steps, data):
        method = module.make(net, SPEC, hyper)
        first = method.init(tiny.KEY)
        one = partial(one_task, method, steps)
        ends = jax.lax.scan(one, first, (jnp.arange(TASKS), data))[1]
        return (first, *ends)

    return tiny.quick_jit(all_tasks)


def one_task(method, steps, learner, inputs):
    """The learner after its end; and before and after it."""
    task, batches = inputs

    def train(i):
        return jax.tree.map(lambda leaf: leaf[i], batches)

    def one_step(i, learner):
        now = Clock(task * steps + i, task, i)
        key = tiny.step_key(now.step)
        return method.step(key, now, train(i % STEPS), learner)[0]

    now = Clock(task * steps, task, jnp.int32(0))
    learner = method.start_task(end_key(task), now, train, learner)
    learner = jax.lax.fori_loop(0, steps, one_step, learner)
    now = Clock(task * steps + steps, task, steps)
    done = method.end_task(end_key(task), now, train, learner)
    return done, (learner, done)


def task_batches(task):
    """The examples of a task as the oracles take them."""
    all_of = tiny.at(data(), task)
    count = EXAMPLES // tiny.BATCH
    return [(all_of.x[i], all_of.y[i], all_of.classes[i]) for i in range(count)]


def oracle_run(optimizer, first, step, end_task, keeps_moments=True):
    """Parameters at the end of each task, [tasks, ...].

    `step(params, grads, opt) -> params, opt`; `end_task(params, task)`.
    """
    init, update, settings = OPTIMIZERS[optimizer]
    update = partial(update, step_size=HYPER["step_size"], **settings)
    params = oracle_mlp.cast(first.net.params)
    opt, rows = init(params), []
    for task in range(TASKS):
        opt = opt if keeps_moments else init(params)
        for i in range(STEPS):
            batch = tiny.at(tiny.at(data(), task), i)
            grads = oracle.loss_gradient(params, batch.x, batch.y, batch.classes)
            params, opt = step(params, grads, opt, optimizer=update)
        end_task(params, task)
        rows.append(params)
    return jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows)


def moved(a, b):
    """The largest difference of two trees."""
    return max(
        float(np.abs(x - y).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def example_batch(net_spec, size=tiny.BATCH, seed=3):
    """Three minibatches with outputs of their own in play in each example."""
    rng = np.random.default_rng(seed)
    classes = rng.random((3, size, net_spec.num_outputs)) < 0.6
    y = rng.integers(0, net_spec.num_outputs, (3, size)).astype(np.int32)
    np.put_along_axis(classes, y[..., None], True, axis=-1)
    x = rng.normal(size=(3, size, *net_spec.input_shape)).astype(np.float32)
    return Batch(x, y, np.ones((3, size), np.float32), classes, 0 * y)


def labels_drawn(net, state, batches):
    """What the estimator 'sampled' draws of those minibatches, [3, size]."""
    draws = []
    for i in range(3):
        logits = net.apply(state, batches.x[i], train=False, key=None)[0]
        masked = jnp.where(batches.classes[i], logits, -1e9)
        key = jax.random.fold_in(tiny.KEY, i)
        draws.append(np.asarray(jax.random.categorical(key, masked)))
    return draws


def train_of(batches):
    return lambda i: jax.tree.map(lambda leaf: jnp.asarray(leaf)[i], batches)
