"""What the tests of the permuted and the stationary stream share: small ones of each."""

import numpy as np
import pytest

from cl_bench.streams import permuted, stationary

TINY = {"size": 4, "classes": 3, "train": 24, "test": 7}
BOTH = pytest.mark.parametrize("module", [permuted, stationary])


def make(module, **options):
    return module.make(
        **{"dataset": "synthetic", "dataset_options": TINY, "num_tasks": 3} | options
    )


def same_pixels(x):
    """Each row's pixels in increasing order: what a permutation cannot change."""
    return np.sort(np.asarray(x).reshape(-1, x.shape[-1]), axis=1)
