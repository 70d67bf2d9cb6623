"""EWC, SI, MAS and L2 to the previous task: oracles across tasks, and their limits."""

from functools import cache, partial
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import testing
from cl_bench.losses import squared_error
from cl_bench.methods import (
    _anchors,
    _example_gradients,
    _fisher,
    backprop,
    ewc,
    l2_previous,
    mas,
    si,
)
from cl_bench.networks import cnn, mlp
from cl_bench.types import Batch, Clock
from tests import tiny
from tests.reference import ewc as oracle
from tests.reference import mas as oracle_mas
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle_optimizers
from tests.reference import si as oracle_si
from tests.reference.mlp import map_params

TASKS, STEPS, EXAMPLES = 3, 20, 12  # a task's examples are its first three minibatches
IN_PLAY = ([0, 1], [2, 3], [0, 1, 2, 3])
SPEC = tiny.SPEC._replace(num_tasks=TASKS, examples_per_task=EXAMPLES)
NET = mlp.make(SPEC, widths=(8, 6), init="pytorch")  # biases that are not 0
HYPER = {"step_size": 0.05, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}
OPTIMIZERS = {
    "sgd": (oracle_optimizers.init_sgd, oracle_optimizers.sgd, {}),
    "adam": (
        oracle_optimizers.init_adam, oracle_optimizers.adam,
        {"b1": 0.8, "b2": 0.99, "eps": 1e-6},
    ),
}  # fmt: skip
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)
METHODS = {
    "ewc": (ewc, {}),
    "online ewc": (ewc, {"mode": "online"}),
    "si": (si, {}),
    "mas": (mas, {}),
    "l2_previous": (l2_previous, {}),
}


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


def oracle_run(optimizer, first, step, end_task):
    """Parameters at the end of each task, [tasks, ...].

    `step(params, grads, opt) -> params, opt`; `end_task(params, task)`.
    """
    init, update, settings = OPTIMIZERS[optimizer]
    update = partial(update, step_size=HYPER["step_size"], **settings)
    params = oracle_mlp.cast(first.net.params)
    opt, rows = init(params), []
    for task in range(TASKS):
        for i in range(STEPS):
            batch = tiny.at(tiny.at(data(), task), i)
            grads = oracle.loss_gradient(params, batch.x, batch.y, batch.classes)
            params, opt = step(params, grads, opt, optimizer=update)
        end_task(params, task)
        rows.append(params)
    return jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows)


class Anchored:
    """The oracle of quadratic penalties, with `importance(params, task)`."""

    def __init__(self, strength, mode, gamma, importance):
        self.strength, self.mode, self.gamma = strength, mode, gamma
        self.importance, self.anchors = importance, []

    def step(self, params, grads, opt, optimizer):
        return oracle.step(
            params, grads, opt, self.anchors,
            optimizer=optimizer, strength=self.strength,
        )  # fmt: skip

    def end_task(self, params, task):
        self.anchors = oracle.end_task(
            params, self.importance(params, task), self.anchors,
            mode=self.mode, gamma=self.gamma,
        )  # fmt: skip


def moved(a, b):
    """The largest difference of two trees."""
    return max(
        float(np.abs(x - y).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


# ---- oracles, three tasks


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        ("sgd", {"mode": "separate"}),
        ("sgd", {"mode": "online", "gamma": 0.7}),
        ("adam", {"mode": "online", "gamma": 0.7, "estimator": "empirical"}),
        ("adam", {"estimator": "batched", "normalise": "trace"}),
    ],
    ids=["separate", "online", "online empirical", "batched by trace"],
)
def test_ewc(optimizer, settings):
    estimator = settings.get("estimator", "exact")

    def importance(params, task):
        found = oracle.fisher(params, task_batches(task), estimator)
        return oracle.by_trace(found) if "normalise" in settings else found

    strength = 30.0 if "normalise" in settings else 3.0
    first, before, _ = run(ewc, optimizer=optimizer, strength=strength, **settings)
    expected = Anchored(
        strength,
        settings.get("mode", "separate"),
        settings.get("gamma", 1.0),
        importance,
    )
    close(
        before.net.params,
        oracle_run(optimizer, first, expected.step, expected.end_task),
    )
    plain = run(backprop, optimizer=optimizer)[1].net.params
    assert moved(tiny.at(plain, -1), tiny.at(before.net.params, -1)) > 1e-3
    close(tiny.at(plain, 0), tiny.at(before.net.params, 0))


@pytest.mark.parametrize(("optimizer", "clamp"), [("sgd", False), ("adam", True)])
def test_si(optimizer, clamp):
    first, before, after = run(
        si, optimizer=optimizer, strength=2.0, xi=0.1, clamp=clamp
    )
    state = oracle_si.init(first.net.params)

    def step(params, grads, opt, optimizer):
        nonlocal state
        params, opt, state = oracle_si.step(
            params, grads, opt, state, optimizer=optimizer, strength=2.0
        )
        return params, opt

    def end_task(params, task):
        nonlocal state
        state = oracle_si.end_task(params, state, xi=0.1, clamp=clamp)

    close(before.net.params, oracle_run(optimizer, first, step, end_task))
    omega = tiny.at(_anchors.of(after).weight, -1)
    close(omega, jax.tree.map(np.float32, state["omega"]), rtol=1e-4)


@pytest.mark.parametrize("clamp", [False, True])
def test_a_path_that_went_up_the_loss(clamp):
    """omega = -0.3 and 0.3, no way from start to end: Omega = omega / xi."""
    method = made(si, xi=0.1, clamp=clamp)

    @tiny.quick_jit
    def ended():
        learner = method.init(tiny.KEY)
        signs = jax.tree.map(lambda p: jnp.where(p > 0, 0.3, -0.3), learner.net.params)
        own = {**learner.extra, "path": signs}
        train = train_of(tiny.at(data(), 0))
        return method.end_task(
            tiny.KEY, tiny.clock(9), train, learner._replace(extra=own)
        )

    done = ended()
    expected = jax.tree.map(
        lambda p: np.where(p > 0, 3.0, 0.0 if clamp else -3.0).astype(np.float32),
        done.net.params,
    )
    close(_anchors.of(done).weight, expected)


@pytest.mark.parametrize(
    ("optimizer", "estimator"), [("sgd", "example"), ("adam", "batched")]
)
def test_mas(optimizer, estimator):
    first, before, _ = run(mas, optimizer=optimizer, strength=0.3, estimator=estimator)
    expected = Anchored(
        0.6, "online", 1.0,
        lambda params, task: oracle_mas.importance(params, task_batches(task), estimator),
    )  # fmt: skip
    close(
        before.net.params,
        oracle_run(optimizer, first, expected.step, expected.end_task),
    )


@pytest.mark.parametrize("mode", _anchors.MODES)
def test_l2_previous(mode):
    first, before, after = run(l2_previous, strength=0.5, mode=mode)

    def importance(params, task):
        # One anchor of weight 1, whatever the number of tasks: nothing is added up.
        return map_params(np.ones_like, params)

    expected = Anchored(0.5, mode, 1.0, importance)

    def end_task(params, task):
        if mode == "online":
            expected.anchors = []
        expected.end_task(params, task)

    close(before.net.params, oracle_run("sgd", first, expected.step, end_task))
    weight = _anchors.of(after).weight["head"]["bias"]
    assert weight[-1, 0] == (3 if mode == "separate" else 1)


# ---- importances


def example_batch(net_spec, size=tiny.BATCH, seed=3):
    """Three minibatches with outputs of their own in play in each example."""
    rng = np.random.default_rng(seed)
    classes = rng.random((3, size, net_spec.num_outputs)) < 0.6
    y = rng.integers(0, net_spec.num_outputs, (3, size)).astype(np.int32)
    np.put_along_axis(classes, y[..., None], True, axis=-1)
    x = rng.normal(size=(3, size, *net_spec.input_shape)).astype(np.float32)
    return Batch(x, y, np.ones((3, size), np.float32), classes, 0 * y)


def train_of(batches):
    return lambda i: jax.tree.map(lambda leaf: jnp.asarray(leaf)[i], batches)


def fisher_of(net, spec, estimator, batches, key=tiny.KEY, examples=None):
    state = start_of(net)
    return state, fisher_program(net, spec, estimator, examples)(key, batches, state)


@cache
def start_of(net):
    return tiny.quick_jit(net.init)(jax.random.key(5))


@cache
def fisher_program(net, spec, estimator, examples):
    estimate = _fisher.make(net, spec, estimator, examples)
    return tiny.quick_jit(
        lambda key, batches, state: estimate(key, train_of(batches), state)
    )


@pytest.mark.parametrize("estimator", _fisher.ESTIMATORS)
def test_fisher_against_the_gradients_of_single_examples(estimator):
    batches = example_batch(SPEC)
    state, found = fisher_of(NET, SPEC, estimator, batches)
    draws = None
    if estimator == "sampled":
        draws = []
        for i in range(3):
            logits = NET.apply(state, batches.x[i], train=False, key=None)[0]
            masked = jnp.where(batches.classes[i], logits, -1e9)
            key = jax.random.fold_in(tiny.KEY, i)
            draws.append(np.asarray(jax.random.categorical(key, masked)))
    rows = [(batches.x[i], batches.y[i], batches.classes[i]) for i in range(3)]
    expected = oracle.fisher(state.params, rows, estimator, draws)
    close(found, jax.tree.map(np.float32, expected), atol=1e-8)


def test_sampled_fishers_average_to_the_exact_one():
    batches = example_batch(SPEC)
    state, exact = fisher_of(NET, SPEC, "exact", batches)
    estimate = _fisher.make(NET, SPEC, "sampled", None)
    draw = jax.vmap(lambda key: estimate(key, train_of(batches), state))
    many = tiny.quick_jit(draw)(jax.random.split(tiny.KEY, 800))
    for one, draws in zip(jax.tree.leaves(exact), jax.tree.leaves(many), strict=True):
        error = np.std(draws, axis=0) / np.sqrt(len(draws))
        assert np.all(np.abs(np.mean(draws, axis=0) - one) <= 5 * error + 1e-7)


def test_fisher_of_the_first_examples_only():
    batches = example_batch(SPEC)
    _, few = fisher_of(NET, SPEC, "exact", batches, examples=6)
    weight = np.repeat([1.0, 1.0, 0.0], 4).reshape(3, 4).astype(np.float32)
    weight[1, 2:] = 0
    _, padded = fisher_of(NET, SPEC, "exact", batches._replace(weight=weight))
    _, every = fisher_of(NET, SPEC, "exact", batches)
    close(few, padded)
    assert moved(few, every) > 1e-4


def network(module, shape=(tiny.INPUTS,), **options):
    spec = SPEC._replace(input_shape=shape)
    return module.make(spec, **options), spec


@pytest.mark.parametrize(
    ("dense", "parts"),
    [
        (True, network(mlp, widths=())),
        (True, network(mlp, widths=(5, 4), spare_units=2, activation="tanh")),
        (False, network(mlp, widths=(5,), activation="crelu")),
        (False, network(mlp, widths=(5,), activation="prelu")),
        (False, network(mlp, widths=(5,), norm="layer")),
        (False, network(cnn, (6, 6, 1), channels=(3,), kernels=(3,), dense=(4,))),
    ],
    ids=[
        "linear",
        "dense",
        "two features a unit",
        "prelu",
        "layer norm",
        "convolution",
    ],
)
def test_which_networks_need_no_gradient_of_an_example(dense, parts):
    assert _example_gradients.is_dense(*parts) == dense


@pytest.mark.parametrize(
    ("net", "spec"),
    [
        network(mlp, widths=()),
        network(mlp, widths=(5,), norm="layer"),
        network(cnn, (6, 6, 1), channels=(3,), kernels=(3,), dense=(4,)),
    ],
    ids=["linear", "layer norm", "convolution"],
)
def test_fisher_of_any_network_by_jacobians(net, spec):
    batches = example_batch(spec)
    state, found = fisher_of(net, spec, "exact", batches)
    x, classes = (np.concatenate(leaf) for leaf in (batches.x, batches.classes))

    def log_p(params):
        logits = net.apply(state._replace(params=params), x, train=False, key=None)[0]
        return jax.nn.log_softmax(jnp.where(classes, logits, -1e9))

    p = jnp.exp(log_p(state.params))
    jacobian = tiny.quick_jit(jax.jacrev(log_p))(state.params)
    expected = jax.tree.map(
        lambda j: jnp.einsum("bk,bk...->...", p, jnp.square(j)) / len(x), jacobian
    )
    close(found, expected, rtol=1e-4, atol=1e-7)


def test_nothing_is_remembered_of_what_is_not_in_use():
    net = testing.tiny_network(SPEC, constrained=True)
    state, found = fisher_of(net, SPEC, "exact", example_batch(SPEC))
    for name, allowed in state.edges.items():
        assert not np.any(found[name]["kernel"][~allowed])
    for name, alive in state.alive.items():
        assert not np.any(found[name]["kernel"][:, ~alive])
        assert not np.any(found[name]["bias"][~alive])
    method, train = made(l2_previous, net), train_of(tiny.at(data(), 0))
    end = tiny.quick_jit(
        lambda: method.end_task(tiny.KEY, tiny.clock(9), train, method.init(tiny.KEY))
    )
    ones = _anchors.of(end()).weight
    assert ones["h1"]["bias"].tolist() == state.alive["h1"].astype(float).tolist()
    assert ones["h2"]["kernel"][~state.alive["h1"]].max() == 0


# ---- limits


@pytest.mark.parametrize("name", METHODS)
def test_strength_0_is_fine_tuning_and_any_other_is_not(name):
    module, settings = METHODS[name]
    plain = run(backprop)[1].net.params
    off = run(module, strength=0.0, **settings)
    on = run(module, strength=1.0, **settings)
    chex.assert_trees_all_equal(off[1].net.params, plain)
    chex.assert_trees_all_equal(
        tiny.at(on[1].net.params, 0), tiny.at(plain, 0)
    )  # exactly 0 is added before a task has ended
    assert moved(tiny.at(on[1].net.params, 1), tiny.at(plain, 1)) > 1e-5
    weights = jax.tree.leaves(tiny.at(_anchors.of(on[2]).weight, 0))
    assert sum(np.abs(w).sum() for w in weights) > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_larger_strength_holds_important_weights_ever_more(name):
    """Drift in task 2 of the weights of a tenth of the largest importance and more.

    Freezing is a limit of these only: SGD diverges where the step size times the pull
    of the most important weight (strength times importance, twice that where the penalty
    has no 1/2) exceeds 2. The largest strength here makes that product 1, and weights
    far less important still move.
    """
    module, settings = METHODS[name]
    walk_on = partial(run, module, steps=5000, **{**settings, "step_size": 2e-4})
    weight = tiny.at(_anchors.of(walk_on(strength=0.0)[2]).weight, 0)
    largest = max(leaf.max() for leaf in jax.tree.leaves(weight))
    # Of a penalty without 1/2, half of it: a step all the way back to the anchor.
    whole = (0.5 if module in (si, mas) else 1.0) / (2e-4 * largest)
    drifts = []
    for share in (0.0, 0.01, 0.1, 1.0):
        _, before, after = walk_on(strength=share * whole)
        trees = (weight, before.net.params, after.net.params)
        drifts.append(
            max(
                np.abs(p[1] - q[0])[f >= 0.1 * largest].max(initial=0)
                for f, p, q in zip(*map(jax.tree.leaves, trees), strict=True)
            )
        )
    assert all(a > b for a, b in pairwise(drifts)), drifts
    assert drifts[0] > 100 * drifts[-1] > 0, drifts


@pytest.mark.parametrize("module", [ewc, l2_previous])
def test_one_past_task_makes_separate_and_online_the_same(module):
    pairs = [
        run(module, strength=1.0, mode=mode)[1].net.params for mode in _anchors.MODES
    ]
    close(tiny.at(pairs[0], 1), tiny.at(pairs[1], 1))
    assert moved(tiny.at(pairs[0], 2), tiny.at(pairs[1], 2)) > 1e-5


def test_a_strength_of_1e10_does_not_drown_in_rounding():
    """Anchors of two equal ends: at the centre the pull is exactly 0."""
    after = run(l2_previous, mode="separate", strength=1e10, step_size=0.0)[2]
    learner = jax.tree.map(jnp.asarray, tiny.at(after, -1))
    transform = _anchors.pull(NET, 1e10)
    zeros = jax.tree.map(jnp.zeros_like, learner.net.params)
    pulled, _ = transform.update(
        tiny.KEY, tiny.clock(0), zeros, learner.net, _anchors.of(learner)
    )
    assert all(not leaf.any() for leaf in jax.tree.leaves(pulled))


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (ewc, {"mode": "offline"}, "none of separate, online"),
        (ewc, {"estimator": "true"}, "none of exact, sampled"),
        (ewc, {"normalise": "mean"}, "none of None, 'trace'"),
        (ewc, {"fisher_examples": 0}, "fisher_examples=0: take 1 or more"),
        (mas, {"estimator": "exact"}, "none of example, batched"),
        (mas, {"importance_examples": -1}, "take 1 or more"),
        (l2_previous, {"mode": "sum"}, "none of separate, online"),
    ],
)
def test_settings_that_cannot_be(module, settings, message):
    with pytest.raises(ValueError, match=message):
        module.check(module.Hyper(**settings))
    with pytest.raises(ValueError, match=message):
        made(module, **settings)


def test_a_fisher_of_a_regression_is_refused_and_the_others_are_not():
    spec = SPEC._replace(loss=squared_error)
    with pytest.raises(ValueError, match="take the method mas, si or l2_previous"):
        made(ewc, spec=spec)
    for module in (mas, si, l2_previous):
        made(module, spec=spec)
