"""Pollution as a metric of a run: whose weights, on whose examples, and what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import lane, runner
from cl_bench.methods import backprop, hat, packnet
from cl_bench.metrics import _pollution, pollution
from cl_bench.networks import mlp
from cl_bench.streams import split_classes
from tests import tiny

TASKS = 3


def run(method=backprop, scenario="domain", hyper=None, network=None, **options):
    """Rows and learners of the tasks' ends, the first learner untrained; last masks."""
    stream = split_classes.make(
        scenario=scenario, class_order="natural", num_tasks=TASKS, batch_size=20
    )
    net = mlp.make(stream.spec, widths=(9,), **(network or {}))
    hyper = method.Hyper(**{"step_size": 0.1, **(hyper or {})})
    metric = pollution.make(net, stream.spec, fraction=0.3, **options)
    made = runner.make_run(stream, net, method.make, [metric], method.NEEDS)
    data = jax.tree.map(jnp.asarray, stream.load())
    chunk = tiny.quick_jit(made.chunk, static_argnums=6)
    carry = made.init(data, jnp.int32(0), hyper)
    rows, learners = [], [carry.learner]
    for task in range(TASKS):
        args = data, jnp.int32(0), hyper, carry, jnp.int32(task), jnp.int32(1), 1
        carry, row = chunk(*args)
        rows.append({name: float(value[0]) for name, value in row.items()})
        learners.append(carry.learner)
    return stream, net, data, rows, learners, carry.metrics[0]["masks"]


def examples(stream, data, task, split="test"):
    """x, y of a task's first five minibatches, and the outputs it has in play."""
    key = jax.random.fold_in(lane.run_key(0), lane.STREAM)  # of the run above
    state = stream.start(data, key, jnp.int32(task))
    if split == "train":
        count = stream.spec.examples_per_task // stream.spec.batch_size
        batches = [stream.batch(data, state, jnp.int32(i)) for i in range(count)]
    else:
        batches = [
            stream.held_out(data, state, split, 2, jnp.int32(i)) for i in range(5)
        ]
    weight = np.concatenate([b.weight for b in batches])
    rows = np.arange(len(weight)) % int(weight.sum())  # instead of the padding
    x, y = (np.concatenate([getattr(b, k) for b in batches])[rows] for k in "xy")
    return x, y, np.asarray(batches[0].classes[0])


def shares(params, masks, inputs, i):
    """Absolute share of task i by every task, from masks of the weights that act."""
    s = [_pollution.contributions(kernels(params), mask, inputs) for mask in masks]
    return [_pollution.pollution("absolute_share", s[i], other) for other in s]


def kernels(params):
    return {name: layer["kernel"] for name, layer in params.items()}


@pytest.mark.parametrize("rule", ["magnitude", "change"])
def test_rows_use_the_weights_that_each_task_protected_at_its_end(rule):
    stream, _, data, rows, learners, _ = run(
        rule=rule, kinds=("absolute_share", "causal"), neurons=True
    )
    nets = [learner.net.params for learner in learners]
    masks = [
        _pollution.protected(
            rule, 0.3, weights=kernels(nets[t + 1]), start=kernels(nets[t])
        )
        for t in range(TASKS)
    ]
    x, y, _ = examples(stream, data, 1)
    once = len(np.unique(x, axis=0))
    params = nets[-1]

    def outputs(params):
        hidden = np.maximum(x @ params["h1"]["kernel"] + params["h1"]["bias"], 0.0)
        return hidden, hidden @ params["head"]["kernel"] + params["head"]["bias"]

    inputs = {"h1": x, "head": np.asarray(outputs(params)[0])}
    expected = shares(params, masks, inputs, 1)[0]
    found = rows[2]["pollution_absolute_share/1_by_0"]
    assert found == pytest.approx(float(expected.network), 1e-3)
    for layer, p in expected.neurons.items():
        for name, share in (("q05", 5), ("q50", 50), ("q95", 95)):
            column = f"pollution_absolute_share/1_by_0/{layer}/{name}"
            wanted = np.nanpercentile(np.asarray(p), share)
            assert rows[2][column] == pytest.approx(wanted, 1e-3)
            assert np.isnan(rows[1][column])  # of the last task's end alone

    def accuracy(params):
        right = np.argmax(outputs(params)[1], 1) == y
        return float(np.mean(right[:once]))

    lost = accuracy(params) - accuracy(_pollution.without(params, masks[0]))
    assert rows[2]["pollution_causal/1_by_0"] == pytest.approx(lost, abs=1e-6)


def test_what_a_task_changed_is_told_from_its_first_weights():
    """PackNet prunes at a task's end, which is no update of a step."""
    settings = {"split": "even"}
    *_, learners, masks = run(
        packnet, "task", settings, rule="change", kinds=("absolute_share",)
    )
    for t in range(TASKS):
        before, after = (kernels(learners[i].net.params) for i in (t, t + 1))
        wanted = _pollution.protected("change", 0.3, weights=after, start=before)
        for name, mask in wanted.items():
            np.testing.assert_array_equal(masks[name][t], mask, err_msg=f"{t} {name}")


def test_the_first_layer_reads_standardised_inputs():
    """Where the network standardises them, pollution is of what the kernel reads."""
    stream, net, data, rows, learners, masks = run(
        network={"input_norm": "ema"}, kinds=("absolute_share",)
    )
    x, _, _ = examples(stream, data, 1)
    last = learners[-1].net
    acts = net.apply(last, x, train=False, key=None)[1]
    own = [{name: mask[t] for name, mask in masks.items()} for t in range(TASKS)]
    of_what_is_read, of_x = (
        shares(last.params, own, {"h1": first, "head": acts["h1"]}, 1)[0].network
        for first in (acts["x"], x)
    )
    found = rows[2]["pollution_absolute_share/1_by_0"]
    assert found == pytest.approx(float(of_what_is_read), 1e-4)
    assert found != pytest.approx(float(of_x), 2e-3)


def test_of_a_task_with_itself_and_of_tasks_to_come():
    *_, rows, _, _ = run(layers=True)
    for i in range(TASKS):
        assert rows[2][f"pollution_literal/{i}_by_{i}"] == pytest.approx(1.0)
        assert rows[2][f"pollution_variance_ratio/{i}_by_{i}"] == pytest.approx(1.0)
        assert rows[2][f"pollution_absolute_share/{i}_by_{i}"] == pytest.approx(0.5)
    both = rows[2]["pollution_absolute_share/1_by_0"]
    layers = [rows[2][f"pollution_absolute_share/1_by_0/{n}"] for n in ("h1", "head")]
    assert both == pytest.approx(np.mean(layers))
    for i, j in ((0, 1), (1, 0), (1, 1)):
        assert np.isnan(rows[0][f"pollution_causal/{i}_by_{j}"])


def test_the_fisher_rule_reads_the_tasks_own_examples():
    stream, net, data, _, learners, masks = run(rule="fisher", kinds=("causal",))

    @tiny.quick_jit
    def fisher(state, x, y, classes):
        """Mean of the squared gradients of -log p(y | x), example by example."""

        def loss(params, x, y):
            at = state._replace(params=params)
            logits = net.apply(at, x[None], train=False, key=None)[0][0]
            return -jax.nn.log_softmax(jnp.where(classes, logits, -jnp.inf))[y]

        grads = jax.vmap(jax.grad(loss), (None, 0, 0))(state.params, x, y)
        return jax.tree.map(lambda g: jnp.mean(jnp.square(g), axis=0), grads)

    def agreement(task, of):
        """Share of what a task protects that the examples of task `of` give too."""
        state = learners[task + 1].net
        found = kernels(fisher(state, *examples(stream, data, of, "train")))
        same, size = 0, 0
        for name, scores in found.items():
            scores, mask = np.asarray(scores).ravel(), np.asarray(masks[name][task])
            largest = np.argsort(-scores, kind="stable")[: mask.sum()]
            assert mask.sum() == min(round(0.3 * mask.size), (scores > 0).sum())
            same, size = same + mask.ravel()[largest].sum(), size + mask.sum()
        return same / size

    for task in range(TASKS):
        assert agreement(task, task) > 0.995  # but for ties
        assert agreement(task, (task + 1) % TASKS) < 0.9


def test_the_frozen_rule_takes_what_packnet_gave_each_task():
    stream, _, data, rows, learners, recorded = run(
        packnet,
        "task",
        {"head": "pack"},
        rule="frozen",
        kinds=("absolute_share", "causal"),
        layers=True,
    )
    ended = learners[-1]
    owner = {n: np.asarray(o) for n, o in ended.extra["packnet"]["owner"].items()}
    for j in range(TASKS):
        for name, of in owner.items():
            assert (of == j).any()
            mask = np.asarray(recorded[name][j])
            np.testing.assert_array_equal(mask, of == j)
            at_end, now = (
                kernels(k.net.params)[name] for k in (learners[j + 1], ended)
            )
            np.testing.assert_array_equal(at_end[mask], now[mask])  # frozen since
    i, params = 1, ended.net.params
    acting = {n: np.where(owner[n] <= i, k, 0.0) for n, k in kernels(params).items()}
    x = examples(stream, data, i)[0]
    hidden = np.maximum(x @ acting["h1"] + np.asarray(params["h1"]["bias"]), 0.0)
    inputs = {"h1": x, "head": hidden}
    masks = [{n: (o == j) & (j <= i) for n, o in owner.items()} for j in range(TASKS)]
    wanted = shares(params, masks, inputs, i)
    for j in range(TASKS):
        name = f"pollution_absolute_share/{i}_by_{j}"
        assert rows[2][name] == pytest.approx(float(wanted[j].network), 1e-3)
        for layer in owner:
            value = float(wanted[j].layers[layer])
            assert rows[2][f"{name}/{layer}"] == pytest.approx(value, 1e-3)
    # A task is answered without what later ones have been given.
    assert rows[2][f"pollution_absolute_share/{i}_by_2"] == 0.0
    assert rows[2][f"pollution_causal/{i}_by_2"] == 0.0
    assert rows[2][f"pollution_absolute_share/{i}_by_0"] > 0.0


def test_packnets_outputs_are_each_tasks_own():
    *_, rows, _, _ = run(
        packnet, "task", {}, rule="frozen", kinds=("absolute_share",), layers=True
    )
    for j in range(TASKS):
        head = rows[2][f"pollution_absolute_share/1_by_{j}/head"]
        assert head == pytest.approx(0.5 if j == 1 else 0.0)


def test_the_frozen_rule_takes_what_hats_gates_leave_open():
    hyper = {"max_sharpness": 50.0, "sparsity": 0.1}
    *_, rows, learners, _ = run(
        hat, "task", hyper, rule="frozen", kinds=("absolute_share",), layers=True
    )
    ended = learners[-1]
    e = np.asarray(ended.extra["hat"]["embedding"]["h1"])
    open_ = e > 0  # [T, U]
    assert open_.any(axis=1).all() and not open_.all()
    new = [open_[j] & ~open_[:j].any(axis=0) for j in range(TASKS)]
    for i in range(TASKS):
        for j in range(TASKS):
            # Of the units open for i, column by column: who has come first.
            share = [
                np.nan if not open_[i, u] or not (new[i][u] or new[j][u])
                else 0.5 if i == j else float(new[j][u])
                for u in range(9)
            ]  # fmt: skip
            found = rows[2][f"pollution_absolute_share/{i}_by_{j}/h1"]
            wanted = np.nanmean(share) if np.isfinite(share).any() else np.nan
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
            # Each task has outputs of its own: their weights are no other task's.
            head = rows[2][f"pollution_absolute_share/{i}_by_{j}/head"]
            assert head == pytest.approx(0.5 if i == j else 0.0)
