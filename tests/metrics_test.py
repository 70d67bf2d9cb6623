"""Metrics against hand-worked numbers and the numpy oracles, alone and in a run."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import runner
from cl_bench.methods import backprop
from cl_bench.metrics import (
    _ranks,
    approximate_rank,
    dead_units,
    dormant_units,
    effective_rank,
    gradient_norm,
    online_accuracy,
    weight_magnitude,
)
from cl_bench.networks import mlp
from cl_bench.types import Batch, Learner, NetState, Probe, Stream, Unit
from tests import tiny
from tests.reference import metrics as oracle
from tests.reference import mlp as oracle_mlp

close = chex.assert_trees_all_close


def network(**sizes):
    """A network that is nothing but its table of units."""
    rows = tuple(Unit(name, size, (name,), ("head",)) for name, size in sizes.items())
    return mlp.make(tiny.SPEC, widths=(2,))._replace(units=rows)


def read_start(module, acts, alive=None, params=None, edges=None, net=None, **static):
    """What a metric reads where the hidden activations are `acts`, name -> [n, U]."""
    net = net or network(**{name: h.shape[-1] for name, h in acts.items()})
    examples = len(next(iter(acts.values()))) if acts else 8
    spec = tiny.SPEC._replace(batch_size=1, examples_per_task=examples)
    learner = Learner(NetState(params or {}, {}, alive or {}, edges), (), {})

    def train(i):
        y = jnp.zeros(1, jnp.int32)
        return Batch(jnp.full((1, 1), i), y, jnp.ones(1), jnp.ones((1, 4), bool), y)

    def predict(learner, batch):  # the example is its own number
        return None, {n: jnp.asarray(h)[batch.x[:, 0]] for n, h in acts.items()}

    probe = Probe(tiny.clock(0), learner, predict, train, None)
    rows = jax.jit(lambda: module.make(net, spec, **static).read_start(probe))()
    return {name: float(value) for name, value in rows.items()}


def layers(rng, n=40):
    """Two layers: ReLU of rank 3 of 10, with dead and rare units; and dense of 6."""
    low = rng.normal(size=(n, 3)) @ rng.normal(size=(3, 10))
    first = np.maximum(low + 0.3 * rng.normal(size=10), 0.0)
    first[:, 4] = 0.0
    first[:, 7] = np.arange(n) == 0
    return {
        "h1": first.astype(np.float32),
        "h2": rng.normal(size=(n, 6)).astype(np.float32),
    }


def test_ranks_and_units_as_the_oracle():
    acts = layers(np.random.default_rng(0))
    found = {
        **read_start(dead_units, acts),
        **read_start(dormant_units, acts, threshold=0.05, tau=0.1),
        **read_start(effective_rank, acts),
        **read_start(approximate_rank, acts),
    }
    functions = {
        "dead_units": oracle.dead_units,
        "dormant_units_dohare": lambda h: oracle.dormant_units_dohare(h, 0.05),
        "dormant_units_sokar": lambda h: oracle.dormant_units_sokar(h, 0.1),
        "effective_rank": oracle.effective_rank,
        "approximate_rank": oracle.approximate_rank,
        "abs_approximate_rank": oracle.abs_approximate_rank,
    }
    expected = {}
    for name, function in functions.items():
        scale = 100.0 if name.endswith("rank") else 1.0
        of = {layer: function(h) for layer, h in acts.items()}
        expected |= {f"{name}/{n}": scale * of[n] / acts[n].shape[1] for n in of}
        expected[name] = scale * sum(of.values()) / 16
    close(found, expected, rtol=1e-4)
    assert 0 < expected["dead_units"] < expected["dormant_units_dohare"]


def test_ranks_by_hand():
    # Singular values 30, 10 and 0, 0: p = 3/4, 1/4; squares 900 and 100.
    h = np.zeros((5, 4), np.float32)
    h[0, 1], h[3, 2] = 30.0, -10.0
    rank = np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    close(read_start(effective_rank, {"h1": h})["effective_rank"], 25 * rank, rtol=1e-5)
    for proportion, variance, total in [(0.7, 25.0, 25.0), (0.85, 25.0, 50.0)]:
        found = read_start(approximate_rank, {"h1": h}, proportion=proportion)
        assert found["approximate_rank"] == found["approximate_rank/h1"] == variance
        assert found["abs_approximate_rank"] == total


def test_units_by_hand():
    h = np.zeros((200, 4), np.float32)
    h[:, 0] = 1.0  # mean 1
    h[0, 1] = 2.0  # active on 0.5 %, mean 0.01
    h[:3, 2] = -8.0  # active on 1.5 %, mean 0.12
    found = read_start(dormant_units, {"h1": h})  # the layer's mean is 0.2825
    assert found["dormant_units_dohare"] == 0.5
    assert found["dormant_units_sokar"] == 0.25
    assert read_start(dormant_units, {"h1": h}, tau=0.04)["dormant_units_sokar"] == 0.5
    assert read_start(dead_units, {"h1": h})["dead_units/h1"] == 0.25


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e30])
def test_zeros_and_numbers_out_of_range(value):
    acts = {"h1": np.where(np.eye(6, 3) > 0, value, 0.0).astype(np.float32)}
    found = {
        **read_start(effective_rank, acts), **read_start(approximate_rank, acts),
    }  # fmt: skip
    expected = {0.0: 0.0, 1e30: 100.0}.get(value, np.nan)
    close(found, dict.fromkeys(found, expected), rtol=1e-5)
    if np.isnan(value):
        counts = {**read_start(dead_units, acts), **read_start(dormant_units, acts)}
        assert np.isnan(list(counts.values())).all()


def test_spare_units_do_not_count():
    acts = layers(np.random.default_rng(1))
    spare = {"h1": np.zeros((40, 5), np.float32)}
    padded = {"h1": np.concatenate([acts["h1"], spare["h1"]], 1), "h2": acts["h2"]}
    alive = {"h1": jnp.arange(15) < 10}
    for module in (dead_units, dormant_units, effective_rank, approximate_rank):
        close(read_start(module, padded, alive), read_start(module, acts), rtol=1e-4)


def test_weight_magnitude_by_hand():
    net = mlp.make(tiny.SPEC, widths=(3,))
    params = {
        "h1": {"kernel": jnp.array([[1.0, -3.0, 9.0]]), "bias": jnp.full(3, 100.0)},
        "head": {"kernel": jnp.array([[2.0], [-4.0], [8.0]]), "bias": jnp.ones(1)},
    }
    found = read_start(weight_magnitude, {}, params=params, net=net)
    assert found["weight_magnitude/h1"] == pytest.approx(13 / 3)
    assert found["weight_magnitude/head"] == pytest.approx(14 / 3)
    assert found["weight_magnitude"] == pytest.approx(27 / 6)
    assert oracle.weight_magnitude(params) == pytest.approx(27 / 6)
    alive = {"h1": jnp.array([True, True, False])}
    found = read_start(weight_magnitude, {}, alive, params, net=net)
    assert found["weight_magnitude"] == 10 / 4
    edges = {"head": jnp.array([[True], [False], [True]])}
    found = read_start(weight_magnitude, {}, alive, params, edges, net)
    assert found["weight_magnitude/head"] == 2.0
    assert found["weight_magnitude"] == 2.0


def test_a_linear_model_has_no_units_to_measure():
    net = mlp.make(tiny.SPEC, widths=())
    for module in (dead_units, dormant_units, effective_rank, approximate_rank):
        assert read_start(module, {}, net=net) == {}


# ---- through the runner: 3 tasks of 4 steps, 2 segments a task

STEPS = 4
SPEC = tiny.SPEC._replace(
    num_tasks=3, steps_per_task=STEPS, steps_per_segment=2, examples_per_task=16
)
DATA = tiny.batches(3 * STEPS)


def stream():
    def batch(data, task, i):
        step = jnp.minimum(i, STEPS - 1) + STEPS * task
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[step], DATA)

    return Stream(
        SPEC, lambda: (), lambda data, key, task: task, batch, lambda *args: None
    )


@pytest.fixture(scope="module")
def rows():
    net = mlp.make(SPEC, widths=(6, 5))
    modules = (
        online_accuracy, dead_units, dormant_units, effective_rank, approximate_rank,
        weight_magnitude, gradient_norm,
    )  # fmt: skip
    hyper = backprop.Hyper(step_size=jnp.float32(0.1))
    run = runner.make_run(
        stream(), net, backprop.make, [m.make(net, SPEC) for m in modules], frozenset()
    )
    carry = run.init((), jnp.int32(0), hyper)

    @tiny.quick_jit
    def chunk(carry):
        return run.chunk((), jnp.int32(0), hyper, carry, 0, 6, 6)[1]

    found = jax.tree.map(np.asarray, chunk(carry))
    return oracle_mlp.cast(carry.learner.net.params), found


def test_moments_at_which_a_run_is_measured(rows):
    params, found = rows
    for task in range(3):
        block = np.concatenate(DATA.x[STEPS * task : STEPS * (task + 1)])
        acts = oracle_mlp.forward(params, block)[1]
        first = {name: column[2 * task] for name, column in found.items()}
        expected = 100 * sum(oracle.effective_rank(acts[n]) for n in ("h1", "h2")) / 11
        close(float(first["effective_rank"]), expected, rtol=1e-4)
        close(
            float(first["weight_magnitude"]), oracle.weight_magnitude(params), rtol=1e-5
        )
        dead = oracle.dead_units(acts["h1"]) + oracle.dead_units(acts["h2"])
        close(float(first["dead_units"]), dead / 11, rtol=1e-6)
        norms, correct = [], []
        for i in range(STEPS * task, STEPS * (task + 1)):
            _, seen, grads = oracle_mlp.loss_and_grads(params, DATA.x[i], DATA.y[i])
            leaves = jax.tree.leaves(grads)
            norms.append(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves)))
            correct.append(np.mean(seen["logits"].argmax(1) == DATA.y[i]))
            params = oracle_mlp.map_params(lambda p, g: p - 0.1 * g, params, grads)
        last = {name: column[2 * task + 1] for name, column in found.items()}
        close(float(last["gradient_norm"]), np.mean(norms), rtol=1e-5)
        close(float(last["online_accuracy"]), np.mean(correct), rtol=1e-6)


def test_a_number_stands_on_its_own_segment_only(rows):
    starts = ("dead_units", "dormant_units", "effective_rank", "weight_magnitude")
    for name, column in rows[1].items():
        measured = np.isfinite(column).tolist()
        at_start = name.startswith(starts) or "approximate_rank" in name
        pattern = [True, True] if name == "diverged" else [at_start, not at_start]
        assert measured == 3 * pattern, name


def test_singular_values_of_many_positions_need_no_square_matrix():
    h = jnp.ones((100_000, 2)).at[::2, 1].set(-1.0)  # a square factor would be 40 GB
    chex.assert_trees_all_close(
        _ranks.singular_values(h), jnp.full(2, np.sqrt(100_000)), rtol=1e-4
    )
