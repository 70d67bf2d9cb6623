"""Task similarity as a metric of a run: of which networks and examples; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import runner
from cl_bench.losses import mask_logits
from cl_bench.methods import backprop
from cl_bench.metrics import _similarity, task_similarity
from cl_bench.networks import cnn, mlp
from cl_bench.report import similarity as oracle
from cl_bench.streams import split_classes
from tests import tiny

TASKS, EXAMPLES = 3, 48


def run(stream, tasks):
    """Rows of the tasks, and the networks at their ends."""
    net = mlp.make(stream.spec, widths=(9,))
    hyper = backprop.Hyper(step_size=0.1)
    metric = task_similarity.make(net, stream.spec, examples=EXAMPLES)
    made = runner.make_run(stream, net, backprop.make, [metric], frozenset())
    data = jax.tree.map(jnp.asarray, stream.load())
    chunk = tiny.quick_jit(made.chunk, static_argnums=6)
    carry = made.init(data, jnp.int32(0), hyper)
    rows, states = [], []
    for task in range(tasks):
        args = data, jnp.int32(0), hyper, carry, jnp.int32(task), jnp.int32(1), 1
        carry, row = chunk(*args)
        rows.append({name: float(value[0]) for name, value in row.items()})
        states.append(carry.learner.net)
    return net, data, rows, states


@pytest.fixture(scope="module")
def split():
    """Split digits: its test sets, its rows, and the networks at the tasks' ends."""
    stream = split_classes.make(
        scenario="domain", class_order="natural", num_tasks=TASKS, batch_size=20
    )
    net, data, rows, states = run(stream, TASKS)
    tests = []
    for task in range(TASKS):
        state = stream.start(data, jax.random.key(0), jnp.int32(task))  # of any run
        found = stream.held_out(data, state, "test", jnp.int32(2), jnp.int32(0))
        real = int(np.sum(np.asarray(found.weight) > 0))
        assert EXAMPLES < real < 100  # one minibatch holds the task's test set
        tests.append((found, real))
    return stream.spec, net, rows, states, tests


def picked(test, count):
    batch, real = test
    rows = np.arange(count) * real // count
    return jax.tree.map(lambda a: a[rows], batch)


def outputs(net, state, x):
    logits, acts, _ = net.apply(state, x, train=False, key=None)
    return logits, np.asarray(acts["h1"])


def loss_of(spec, net, state, batch):
    def loss(params, x, y, classes):
        at = state._replace(params=params)
        logits = net.apply(at, x[None], train=False, key=None)[0]
        return spec.loss.per_example(mask_logits(logits, classes[None]), y[None])[0]

    grads = jax.vmap(jax.grad(loss), (None, 0, 0, 0))
    found = grads(state.params, batch.x, batch.y, batch.classes)
    leaves = [np.asarray(g).reshape(len(batch.x), -1) for g in jax.tree.leaves(found)]
    return np.concatenate(leaves, axis=1)  # [n, P], of each example


def test_fishers_are_taken_at_each_tasks_own_end(split):
    spec, net, rows, states, tests = split
    own = [
        np.mean(loss_of(spec, net, states[t], picked(tests[t], EXAMPLES)) ** 2, axis=0)
        for t in range(TASKS)
    ]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        wanted = oracle.fisher_overlap(own[i], own[j])
        found = rows[2][f"similarity_fisher_overlap/{i}_{j}"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        assert 0.0 < found < 0.99


def test_gradients_are_of_the_network_of_now(split):
    spec, net, rows, states, tests = split
    for now in (1, 2):
        means = [
            loss_of(spec, net, states[now], picked(tests[t], EXAMPLES)).mean(axis=0)
            for t in (0, 1)
        ]
        found = rows[now]["similarity_gradient_cosine/0_1"]
        wanted = oracle.gradient_cosine(*means)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_cka_is_of_two_networks_on_the_same_examples(split):
    _, net, rows, states, tests = split
    x = np.concatenate([picked(test, EXAMPLES // TASKS).x for test in tests])
    features = [outputs(net, state, x)[1] for state in states]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        wanted = oracle.linear_cka(features[i], features[j])
        found = rows[2][f"similarity_linear_cka/{i}_{j}"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_subspaces_are_of_the_inputs_at_each_tasks_own_end(split):
    _, net, rows, states, tests = split
    bases = []
    for t in range(TASKS):
        x = np.asarray(picked(tests[t], EXAMPLES).x)
        inputs = x, outputs(net, states[t], x)[1]
        bases.append([oracle.input_basis(a) for a in inputs])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        pairs = zip(bases[i], bases[j], strict=True)
        wanted = np.mean([oracle.subspace_overlap(a, b) for a, b in pairs])
        found = rows[2][f"similarity_subspace_overlap/{i}_{j}"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def probed(features, y, classes):
    """Accuracy on the odd rows of a probe fitted on the even ones."""
    x, targets = features[::2], np.eye(classes)[y[::2]]
    mean, target = x.mean(0), targets.mean(0)
    ridge = _similarity.RIDGE * np.mean(x.var(0)) * len(x) * np.eye(x.shape[1])
    gram = (x - mean).T @ (x - mean) + ridge
    kernel = np.linalg.solve(gram, (x - mean).T @ (targets - target))
    return np.mean(np.argmax((features - mean) @ kernel + target, 1)[1::2] == y[1::2])


def test_probes_compare_with_a_network_just_drawn(split):
    spec, net, rows, states, tests = split
    drawn = net.init(jax.random.key(0))
    for i, j in ((0, 0), (0, 2), (2, 1)):
        batch = picked(tests[j], EXAMPLES)
        y = np.asarray(batch.y)
        now, first = (
            probed(outputs(net, state, batch.x)[1], y, spec.num_outputs)
            for state in (states[i], drawn)
        )
        found = rows[2][f"similarity_probe_transfer/{i}_{j}"]
        assert found == pytest.approx(now - first, abs=1e-6)
        assert rows[i][f"similarity_probe_transfer/{i}_{j}"] == found


def test_what_is_recorded_and_when(split):
    *_, rows, _, _ = split
    names = [name for name in rows[2] if name.startswith("similarity_")]
    assert len(names) == 4 * 3 + 9
    for name in names:
        kind, _, pair = name.partition("/")
        i, j = map(int, pair.split("_"))
        last = i if kind == "similarity_probe_transfer" else max(i, j)
        there = [np.isfinite(row[name]) for row in rows]
        assert there == [task >= last for task in range(TASKS)], name


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kinds": ("cka",)}, "linear_cka"),
        ({"examples": 1}, "at least 2"),
        ({"minibatches": 0}, "at least 1"),
        ({"threshold": 0.0}, "at most 1"),
    ],
)
def test_settings_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        task_similarity.make(mlp.make(tiny.SPEC), tiny.SPEC, **options)


def test_a_long_stream_is_refused():
    spec = tiny.SPEC._replace(num_tasks=51)
    with pytest.raises(ValueError, match="at most 50"):
        task_similarity.make(mlp.make(spec), spec)


def test_convolutions_have_no_subspace_overlap():
    spec = tiny.SPEC._replace(input_shape=(6, 6, 1))
    net = cnn.make(spec, channels=(2,), kernels=(3,), dense=(4,))
    with pytest.raises(ValueError, match="leave it out"):
        task_similarity.make(net, spec)
    task_similarity.make(net, spec, kinds=("fisher_overlap", "linear_cka"))
