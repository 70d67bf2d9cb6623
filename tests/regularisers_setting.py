"""What the tests of regularisers and projections share: 50 steps beside an oracle."""

from functools import cache
from typing import Any

import jax
import numpy as np

from cl_bench.methods import backprop
from cl_bench.types import Network
from tests import exactness_setting, tiny
from tests.exactness_setting import HYPER, NET, OPTIMIZERS, STEPS


def compare(method, optimizer, start, step, norm="none"):
    """`step(params, grads, opt, own) -> params, opt, own`, from `start(params)`."""

    def begin(params):
        return OPTIMIZERS[optimizer][0](params), start(params)

    def move(i, params, grads, both):
        del i
        params, *both = step(params, grads, *both)
        return params, both

    return exactness_setting.compare(method, begin, move, norm=norm)[0]


def made(module: Any, optimizer: str, net: Network = NET, **settings: Any):
    hyper = module.Hyper(**HYPER, optimizer=optimizer, **settings)
    return module.make(net, tiny.SPEC, hyper)


@cache
def plain(optimizer, net=NET):
    """The last parameters of backprop on the same data."""
    _, learners, _ = tiny.run(made(backprop, optimizer, net), tiny.batches(STEPS))
    return tiny.at(learners.net.params, -1)


def assert_it_matters(learners, optimizer, net=NET):
    """The last parameters are not those of backprop."""
    pairs = zip(
        jax.tree.leaves(tiny.at(learners.net.params, -1)),
        jax.tree.leaves(plain(optimizer, net)),
        strict=True,
    )
    assert max(np.abs(a - b).max() for a, b in pairs) > 1e-3


def layers(seed, biases=0.5):
    """Parameters with every leaf, and a convolution, far from neutral ones."""
    rng = np.random.default_rng(seed)
    shapes = {"h1": (3, 2, 2, 5), "h2": (5, 4), "head": (4, 3)}
    params = {}
    for name, shape in shapes.items():
        params[name] = {"kernel": 0.3 * rng.normal(size=shape)}
        params[name]["bias"] = biases * rng.normal(size=shape[-1])
        if name != "head":
            params[name]["scale"] = 1 + 0.2 * rng.normal(size=shape[-1])
            params[name]["shift"] = 0.2 * rng.normal(size=shape[-1])
    return jax.tree.map(np.float32, params)
