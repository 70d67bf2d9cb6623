"""Lateral connections: the oracle's gradients, how they are packed and drawn."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import _laterals
from cl_bench.networks import mlp
from tests import tiny
from tests.reference import mlp as oracle_mlp
from tests.reference import progressive as oracle
from tests.task_run import OWN_NET as NET
from tests.task_run import OWN_SPEC as SPEC


def test_the_oracles_gradients_are_those_of_central_differences():
    rng = np.random.default_rng(3)
    sizes = (4, 3, 5, 2)
    columns = [oracle_mlp.random_params(rng, sizes) for _ in range(3)]
    x, y, classes = rng.normal(size=(6, 4)), rng.integers(0, 2, 6), np.ones((6, 2))
    drawn = lambda *shape: rng.normal(size=shape)
    linear = [
        {"h2": {"kernel": drawn(k, 3, 5)}, "head": {"kernel": drawn(k, 5, 2)}}
        for k in range(3)
    ]
    adapter = [
        {
            name: {
                "alpha": drawn(k), "project": drawn(k, n, n), "bias": drawn(n),
                "kernel": drawn(n, m),
            }
            for name, n, m in (("h2", 3, 5), ("head", 5, 2))
        }
        for k in range(3)
    ]  # fmt: skip

    def loss():
        logits = oracle.run(columns, laterals, x)[0]
        return oracle_mlp.cross_entropy(logits, y)[0].mean()

    for laterals in (linear, adapter):
        laterals[0] = {}
        grads, into = oracle.gradients(columns, laterals, x, y, classes > 0)
        for tree, found in ((columns[-1], grads), (laterals[-1], into)):
            for module, leaves in tree.items():
                for leaf, value in leaves.items():
                    at = tuple(rng.integers(0, n) for n in value.shape)
                    before = value[at]
                    value[at] = before + 1e-6
                    up = loss()
                    value[at] = before - 1e-6
                    slope = (up - loss()) / 2e-6
                    value[at] = before
                    np.testing.assert_allclose(
                        found[module][leaf][at], slope, rtol=1e-5, atol=1e-8
                    )


@pytest.mark.parametrize("kind", _laterals.KINDS)
def test_connections_are_packed_and_found_again(kind):
    tasks = 5
    empty, table = (
        f(NET, kind, tasks) for f in (_laterals.blank, _laterals.blank_table)
    )
    draw = tiny.quick_jit(
        lambda k: _laterals.draw(
            jax.random.fold_in(tiny.KEY, k), NET, empty, k, 1.0, 1.0
        )
    )
    rows = [draw(jnp.int32(k)) for k in range(tasks)]
    for k, row in enumerate(rows):
        table = _laterals.put(table, jnp.int32(k), row)
    for k, row in enumerate(rows):
        found = _laterals.take(table, jnp.int32(k), tasks - 1)
        chex.assert_trees_all_equal(found, row)
        kernel = jax.tree.leaves(row.pairs["h2"])[0]
        assert np.all(kernel[:k]) and not np.any(kernel[k:])
    size = sum(leaf.size for leaf in jax.tree.leaves((NET.init(tiny.KEY), table)))
    one = sum(leaf.size for leaf in jax.tree.leaves(NET.init(tiny.KEY)))
    assert _laterals.stored(NET, kind)(tasks) == size + (tasks - 1) * one


def test_connections_start_as_the_layers_they_feed():
    net = mlp.make(SPEC, widths=(300, 200))
    empty = _laterals.blank(net, "linear", 5)
    row = _laterals.draw(tiny.KEY, net, empty, jnp.int32(4), 0.5, 0.0)
    own = net.init(tiny.KEY).params["h2"]["kernel"]
    ratio = np.std(row.pairs["h2"]["kernel"], axis=(1, 2)) / np.std(own)
    np.testing.assert_allclose(ratio, 0.5 / 2, rtol=0.02)
