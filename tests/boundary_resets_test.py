"""Resets at task boundaries: how often, and what the benchmark's own reset leaves."""

from itertools import pairwise

import chex
import jax
import numpy as np
import pytest

from cl_bench import units
from cl_bench.methods import (
    backprop,
    bgd,
    full_reset,
    head_reset,
    l2_init,
    wasserstein,
)
from tests import task_run, tiny
from tests.exactness_boundaries_test import DATA, HYPER, NET, SPEC, jump, made


def test_a_full_reset_leaves_the_head_as_the_benchmark_has_it():
    spec = SPEC._replace(reset_head=True)
    method = full_reset.make(NET, spec, full_reset.Hyper(**HYPER))
    for at in task_run.run(method, DATA)[1:]:
        head, first = at.start.net.params["head"], at.start.net.params["h1"]
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(head))
        assert np.abs(first["kernel"]).max() > 0.1


@pytest.mark.parametrize("module", [backprop, bgd, l2_init, wasserstein])
def test_a_learner_starts_with_the_head_of_the_benchmark(module):
    """And what it keeps of its first network has that head too."""
    learner = module.make(NET, SPEC, module.Hyper()).init(tiny.KEY)
    same = module.make(NET, SPEC._replace(reset_head=True), module.Hyper())
    at_zero = same.init(tiny.KEY)
    expected = units.reset_head(learner.net, NET.head)
    chex.assert_trees_all_equal(at_zero.net, expected)
    for kept in ("reference", "sorted"):
        if kept in learner.extra:
            first, other = at_zero.extra[kept], learner.extra[kept]
            assert not any(np.any(leaf) for leaf in jax.tree.leaves(first[NET.head]))
            chex.assert_trees_all_equal(first["h1"], other["h1"])


@pytest.mark.parametrize("module", [full_reset, head_reset])
def test_a_reset_every_second_task(module):
    tasks = task_run.run(made(module, "momentum", every=2), DATA)
    jumps = [jump(a.end, b.start) for a, b in pairwise(tasks)]
    assert [j > 0.01 for j in jumps] == [False, True, False, True]
    chex.assert_trees_all_equal(tasks[0].end.opt, tasks[1].start.opt)
