"""Task similarity where it is known: what streams permute, relabel and declare."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import runner
from cl_bench.methods import backprop
from cl_bench.metrics import task_similarity
from cl_bench.networks import mlp
from cl_bench.streams import transformed
from tests import tiny

close = chex.assert_trees_all_close


def mean_over_seeds(fraction, view, kinds, seeds=2):
    """Kind -> its mean over runs, of the first two tasks."""
    stream = transformed.make(
        num_tasks=2, view=view, fraction=fraction, batch_size=10, identity_first=True
    )
    net = mlp.make(stream.spec, widths=(12,))
    metric = task_similarity.make(net, stream.spec, kinds=kinds, examples=200)
    made = runner.make_run(stream, net, backprop.make, [metric], frozenset())
    data, hyper = (
        jax.tree.map(jnp.asarray, stream.load()),
        backprop.Hyper(step_size=0.1),
    )

    def of(seed):
        carry = made.init(data, seed, hyper)
        return made.chunk(data, seed, hyper, carry, jnp.int32(0), jnp.int32(2), 2)[1]

    rows = tiny.quick_jit(jax.vmap(of))(jnp.arange(seeds))
    return {k: float(jnp.mean(rows[f"similarity_{k}/0_1"][:, 1])) for k in kinds}


def test_every_measure_falls_with_the_share_of_permuted_pixels():
    kinds = task_similarity.KINDS
    found = [mean_over_seeds(share, "permute", kinds) for share in (0.0, 0.5, 1.0)]
    for kind in kinds:
        same, half, all_moved = (row[kind] for row in found)
        assert same > half > all_moved, kind
    assert found[0]["gradient_cosine"] == pytest.approx(1.0)
    assert found[0]["subspace_overlap"] > 0.95
    assert found[2]["subspace_overlap"] < 0.8


def test_gradients_part_with_the_share_of_permuted_labels():
    kinds = ("gradient_cosine",)
    found = [mean_over_seeds(f, "relabel", kinds)[kinds[0]] for f in (0.0, 0.5, 1.0)]
    assert found[0] == pytest.approx(1.0) and found == sorted(found, reverse=True)
    assert found[0] - 0.1 > found[1] > found[2] + 0.1


def test_the_similarity_that_a_stream_declares():
    found = transformed.similarity(num_tasks=3, fraction=0.25, dataset="mnist")
    moved = 0.75**2
    close(found, np.array([[1, moved, moved], [moved, 1, moved], [moved, moved, 1]]))
    first = transformed.similarity(num_tasks=3, fraction=0.25, identity_first=True)
    close(first[0], np.array([1.0, 0.75, 0.75]))
    assert first[1, 2] == moved
    turned = transformed.similarity(num_tasks=4, view="rotate", degrees=90.0)
    close(turned[0], np.array([1.0, 0.5, 0.0, 0.5]))
    drawn = transformed.similarity(num_tasks=2, view="rotate")
    assert np.isnan(drawn[0, 1]) and drawn[1, 1] == 1.0


def test_the_declared_share_is_that_of_pixels_in_the_same_place():
    stream = transformed.make(num_tasks=2, fraction=0.5)
    data = jax.tree.map(jnp.asarray, stream.load())
    start = jax.jit(lambda seed, t: stream.start(data, jax.random.key(seed), t).views)
    shares = []
    for seed in range(12):
        one, two = (np.asarray(start(seed, jnp.int32(t)).index) for t in (0, 1))
        shares.append(np.mean((one == two)[:, 0]))
    declared = transformed.similarity(num_tasks=2, fraction=0.5)[0, 1]
    # One pixel in 64 comes back to its place by chance.
    assert np.mean(shares) == pytest.approx(declared, abs=0.06)
