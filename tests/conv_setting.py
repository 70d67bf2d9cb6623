"""What the tests of convolutions share: a shape of images, and random ones."""

import chex
import numpy as np

from tests import tiny

close = chex.assert_trees_all_close
SPEC = tiny.SPEC._replace(input_shape=(10, 9, 2))


def images(spec, count=4, seed=0):
    shape = (count, *spec.input_shape)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
