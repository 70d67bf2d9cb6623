"""What the tests of the convolutional oracle share: networks, features, one step."""

import numpy as np

from tests.reference.conv_training import generate_and_test
from tests.reference.utilities import init_state


def random_network(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": rng.normal(size=shape), "bias": rng.normal(size=shape[-1])}
        for name, shape in shapes.items()
    }


def deep_network(seed=0):
    """13 x 9 pixels: c1 11 x 7, pooled 5 x 3; c2 4 x 2, pooled 2 x 1 positions."""
    shapes = {"c1": (3, 3, 2, 3), "c2": (2, 2, 3, 2), "h1": (4, 3), "head": (3, 2)}
    return random_network(seed, **shapes)


def kernels(params):
    return {name: layer["kernel"] for name, layer in params.items() if name != "head"}


# Batch of 2, two positions, two channels. Channel 0 is 0 then 8 at the first position
# and always 6 at the second (mean 5); channel 1 is always 1.
FEATURES = np.array([[[[0.0, 1], [6, 1]]], [[[8, 1], [6, 1]]]])


def two_positions():
    """c1 as above; mean |w| out of channel 0: 2 and 5, of channel 1: 2 and 0."""
    params = random_network(4, c1=(1, 1, 2, 2), h1=(4, 2), head=(2, 2))
    params["c1"]["kernel"] = np.array([[[[2.0, 1.0], [-6.0, 3.0]]]])  # means 4 and 2
    params["h1"]["kernel"] = np.array([[1.0, -3], [2, 2], [-5, 5], [0, 0]])
    return params, {"c1": FEATURES, "h1": np.array([[1.0, 2], [3, 0]])}


def still(params, activations, **options):
    """One step at rate 0."""
    options = {"replacement_rate": 0.0, "decay": 0.5, "maturity": 0} | options
    state = options.pop("state", None) or init_state(params)
    return generate_and_test(
        params, state, activations, fresh=kernels(params), **options
    )
