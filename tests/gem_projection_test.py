"""GEM's quadratic programme, the projections of GEM and A-GEM, and what GEM reads."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from cl_bench import runner
from cl_bench.methods import _quadratic, agem, gem
from cl_bench.networks import mlp
from cl_bench.streams import transformed
from tests import tiny
from tests.reference import gem as oracle_gem


@pytest.mark.parametrize(("n", "rank"), [(1, 4), (5, 40), (20, 60), (20, 6)])
def test_quadratic_programme(n, rank):
    rng = np.random.default_rng(n + rank)
    a = rng.normal(size=(30, n, rank)) + rng.normal(size=(30, 1, rank))
    p = (a @ a.transpose(0, 2, 1) / rank + 1e-3 * np.eye(n)).astype(np.float32)
    c = rng.normal(size=(30, n)).astype(np.float32)
    w = np.asarray(jax.jit(jax.vmap(_quadratic.solve))(p, c), np.float64)
    p, c = p.astype(np.float64), c.astype(np.float64)
    y = np.einsum("bij,bj->bi", p, w) + c  # multipliers
    size = np.abs(c).max(1) + np.abs(w).max(1)
    assert (w >= 0).all()
    assert (y.min(1) > -1e-6 * size).all()
    assert (np.abs(w * y).max(1) < 1e-6 * size**2).all()
    for i in range(30):
        root = np.linalg.cholesky(p[i])
        expected, _ = nnls(root.T, np.linalg.solve(root, -c[i]))
        value = lambda u, i=i: 0.5 * u @ p[i] @ u + c[i] @ u
        assert value(w[i]) == pytest.approx(value(expected), abs=1e-5 * size[i])
        if rank > n:
            chex.assert_trees_all_close(w[i], expected, rtol=2e-3, atol=2e-3)


def test_gem_projection():
    rng = np.random.default_rng(0)
    past = np.array([True, True, True, False])
    g = rng.normal(size=(20, 30)).astype(np.float32) + np.float32(0.3)
    rows = rng.normal(size=(20, 4, 30)).astype(np.float32) * past[:, None]
    rows += np.float32(0.2) * past[:, None]
    project = jax.vmap(lambda g, rows: gem.project(g, rows, past, 0.5, 1e-3))
    found = np.asarray(jax.jit(project)(g, rows))
    for i in range(20):
        expected = oracle_gem.gem(
            g[i].astype(float), rows[i, :3].astype(float), margin=0.5, jitter=1e-3
        )
        chex.assert_trees_all_close(found[i], expected, rtol=1e-5, atol=1e-5)
        conflict = (rows[i, :3] @ g[i]).min() < 0
        assert conflict == (not np.array_equal(found[i], g[i]))
        assert (rows[i, :3] @ found[i]).min() > -0.01  # 0, but for the jitter
    assert 0 < (found != g).any(axis=1).sum() < 20


def test_agem_projection():
    rng = np.random.default_rng(0)
    g = {"a": rng.normal(size=7).astype(np.float32)}
    against, along = ({"a": s * g["a"] + 0.5} for s in (-1, 1))
    chex.assert_trees_all_equal(agem.project(g, along), g)
    found = agem.project(g, against)
    assert g["a"] @ against["a"] < -1
    assert abs(found["a"] @ against["a"]) < 1e-5
    chex.assert_trees_all_close(found["a"], oracle_gem.agem(g["a"], against["a"]))
    chex.assert_trees_all_equal(agem.project(g, {"a": 0 * g["a"]}), g)
    tiny_one = {"a": np.float32(1e-25) * against["a"]}  # its square is 0
    chex.assert_trees_all_close(agem.project(g, tiny_one), found, rtol=1e-5)


@pytest.mark.parametrize("past", [1, 4, 19, 300])
def test_a_portion_holds_a_share_and_little_more(past):
    portions = gem.shared_portions(1100, past)
    for tasks in range(1, past + 1):
        size = next(p.size for p in portions if tasks <= p.most)
        assert 1100 // tasks <= size <= 1.25 * 1100 / tasks
    assert portions[-1].most == past
    assert len(portions) <= 30


def test_what_is_read_does_not_depend_on_the_portions(monkeypatch):
    """Seven tasks: 1, 2, 3, 4 to 5 and 6 past ones have portions of their own."""

    def trained():
        stream = transformed.make(
            num_tasks=7, examples=40, batch_size=10, steps_per_task=8
        )
        net = mlp.make(stream.spec, widths=(6,))
        run = runner.make_run(stream, net, gem.make, [], gem.NEEDS)
        data = jax.tree.map(jnp.asarray, stream.load())
        hyper = gem.Hyper(step_size=0.1, sharing="so_far", capacity=31)
        seed = jnp.uint32(0)

        def lane():
            return run.chunk(data, seed, hyper, run.init(data, seed, hyper), 0, 7, 7)

        return tiny.quick_jit(lane)()[0].learner.net.params

    found = trained()
    everything = lambda capacity, past: [gem.Portion(capacity, past)]
    monkeypatch.setattr(gem, "shared_portions", everything)
    chex.assert_trees_all_close(found, trained(), rtol=1e-4, atol=1e-5)
