"""What the tests of the numpy oracles share: a small network and its gradients."""

from functools import partial

import chex
import numpy as np

from tests.reference import (
    optimizers,
)
from tests.reference.mlp import map_params, random_params

close = partial(chex.assert_trees_all_close, rtol=1e-10, atol=1e-12)
sgd = partial(optimizers.sgd, step_size=0.1)
adam = partial(optimizers.adam, step_size=0.1)

# One input, two hidden units, two outputs. At x = 1 with ReLU: z = (2, -1), h = (2, 0),
# logits = (2, 2), so that p = (1/2, 1/2).
TINY = {
    "h1": {"kernel": np.array([[1.0, -1.0]]), "bias": np.array([1.0, 0.0])},
    "head": {"kernel": np.array([[1.0, 1.0], [3.0, 5.0]]), "bias": np.zeros(2)},
}


def still(params, grads, opt_state):
    """An optimiser that does nothing: what a method does by itself."""
    del grads
    return params, opt_state


def network(seed=0, *, norm=False):
    params = random_params(np.random.default_rng(seed), (3, 4, 2, 2))
    if norm:
        rng = np.random.default_rng(seed + 100)
        for name in ("h1", "h2"):
            width = len(params[name]["bias"])
            params[name]["scale"] = 1 + rng.normal(size=width)
            params[name]["shift"] = rng.normal(size=width)
    return params


def like(params, seed):
    rng = np.random.default_rng(seed)
    return map_params(lambda p: rng.normal(size=p.shape), params)


def zeros(params):
    return map_params(np.zeros_like, params)


def leaf(kernel, bias=0.0):
    return {"head": {"kernel": np.array([[kernel]]), "bias": np.array([bias])}}


def central_differences(function, params, width=1e-6):
    """Gradient of function(params) by central differences, one entry at a time."""
    grads = zeros(params)
    for module, leaves in params.items():
        for name, value in leaves.items():
            for i in np.ndindex(value.shape):
                before = value[i]
                value[i] = before + width
                up = function(params)
                value[i] = before - width
                down = function(params)
                value[i] = before
                grads[module][name][i] = (up - down) / (2 * width)
    return grads


agrees = partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-6)
