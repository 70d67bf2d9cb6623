"""What tests of exactness share: a network, its optimisers, 50 steps beside an oracle.

The oracle's optimisers have the settings of `HYPER`, which the methods are given.
"""

from functools import partial

import chex
import jax
import numpy as np

from cl_bench.networks import mlp
from tests import tiny
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle

STEPS = 50
NET = mlp.make(tiny.SPEC, widths=(8, 6), init="pytorch")  # biases that are not 0
HYPER = {"beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6, "step_size": 0.01}
ADAM = {"b1": 0.8, "b2": 0.99, "eps": 1e-6}
OPTIMIZERS = {
    "sgd": (oracle.init_sgd, partial(oracle.sgd, step_size=0.01)),
    "adam": (oracle.init_adam, partial(oracle.adam, step_size=0.01, **ADAM)),
}
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)


def compare(method, start, step, steps=STEPS, close=close, norm="none"):
    """`step(i, params, grads, own) -> params, own`, from `start(params)`."""
    data = tiny.batches(steps)
    first, learners, _ = tiny.run(method, data)
    params = oracle_mlp.cast(first.net.params)
    own, rows = start(params), []
    for i in range(steps):
        _, _, grads = oracle_mlp.loss_and_grads(params, data.x[i], data.y[i], norm=norm)
        params, own = step(i, params, grads, own)
        rows.append(params)
    expected = jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows)
    close(learners.net.params, expected)
    return learners, own
