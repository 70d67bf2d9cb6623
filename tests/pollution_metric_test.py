"""Pollution as a metric of a run: whose weights, on whose examples, and what is kept."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import runner
from cl_bench.methods import backprop
from cl_bench.metrics import _pollution, pollution
from cl_bench.networks import cnn, mlp
from cl_bench.streams import split_classes
from tests import tiny

close = chex.assert_trees_all_close
TASKS = 3


def run(**options):
    """Rows of the tasks, and the networks at their ends (the first is untrained)."""
    stream = split_classes.make(
        scenario="domain", class_order="natural", num_tasks=TASKS, batch_size=20
    )
    net = mlp.make(stream.spec, widths=(9,))
    hyper = backprop.Hyper(step_size=0.1)
    metric = pollution.make(net, stream.spec, fraction=0.3, **options)
    made = runner.make_run(stream, net, backprop.make, [metric], frozenset())
    data = jax.tree.map(jnp.asarray, stream.load())
    chunk = tiny.quick_jit(made.chunk, static_argnums=6)
    carry = made.init(data, jnp.int32(0), hyper)
    rows, nets = [], [carry.learner.net.params]
    for task in range(TASKS):
        args = data, jnp.int32(0), hyper, carry, jnp.int32(task), jnp.int32(1), 1
        carry, row = chunk(*args)
        rows.append({name: float(value[0]) for name, value in row.items()})
        nets.append(carry.learner.net.params)
    return stream, net, data, rows, nets


def kernels(params):
    return {name: layer["kernel"] for name, layer in params.items()}


@pytest.mark.parametrize("rule", ["magnitude", "change"])
def test_rows_use_the_weights_that_each_task_protected_at_its_end(rule):
    stream, _, data, rows, nets = run(rule=rule, kinds=("absolute_share", "causal"))
    masks = [
        _pollution.protected(
            rule, 0.3, weights=kernels(nets[t + 1]), start=kernels(nets[t])
        )
        for t in range(TASKS)
    ]
    state = stream.start(data, jax.random.key(0), jnp.int32(1))  # task 1 of any run
    batches = [stream.held_out(data, state, "test", 2, jnp.int32(i)) for i in range(5)]
    keep = np.concatenate([b.weight for b in batches]) > 0
    x, y = (np.concatenate([getattr(b, k) for b in batches])[keep] for k in "xy")
    params = nets[-1]

    def outputs(params):
        hidden = np.maximum(x @ params["h1"]["kernel"] + params["h1"]["bias"], 0.0)
        return hidden, hidden @ params["head"]["kernel"] + params["head"]["bias"]

    inputs = {"h1": x, "head": np.asarray(outputs(params)[0])}
    s1, s0 = (
        _pollution.contributions(kernels(params), masks[t], inputs) for t in (1, 0)
    )
    expected = float(_pollution.pollution("absolute_share", s1, s0).network)
    # Five minibatches of 100 hold the task's test images, some of them twice.
    assert rows[2]["pollution_absolute_share/1_by_0"] == pytest.approx(expected, 0.05)

    def accuracy(params):
        return float(np.mean(np.argmax(outputs(params)[1], 1) == y))

    lost = accuracy(params) - accuracy(_pollution.without(params, masks[0]))
    assert rows[2]["pollution_causal/1_by_0"] == pytest.approx(lost, abs=1e-6)


def test_of_a_task_with_itself_and_of_tasks_to_come():
    *_, rows, _ = run(layers=True)
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
    *_, rows, nets = run(rule="fisher", kinds=("absolute_share",))
    assert 0.0 < rows[2]["pollution_absolute_share/0_by_2"] < 1.0
    assert np.isfinite(nets[-1]["h1"]["kernel"]).all()


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
