"""Images of Gaussian classes: any size, number and difficulty, made on the spot."""

from typing import Any

import numpy as np

from cl_bench.types import Dataset


def load(
    size: int = 8,
    channels: int = 1,
    classes: int = 10,
    train: int = 1000,
    test: int = 200,
    noise: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """uint8 images [N, size, size, channels] and int32 labels, in random order.

    Each class has a prototype with pixels from N(0.5, 0.2^2); an example is its
    prototype plus N(0, noise^2), cut to [0, 1], times 255. Classes are balanced to
    within one example. The same options give the same images. Raises ValueError
    for a size, a number of classes or of examples that is too small.
    """
    if min(size, channels, train) < 1 or test < 0 or noise < 0:
        raise ValueError(
            "synthetic: size, channels and train must be at least 1, test and noise "
            f"at least 0; got size={size}, channels={channels}, train={train}, "
            f"test={test}, noise={noise}."
        )
    if not 2 <= classes <= train:
        raise ValueError(
            f"synthetic: classes is {classes}; it must be 2 to train ({train})."
        )
    random = np.random.RandomState(seed)  # its streams never change between versions
    prototypes = random.normal(0.5, 0.2, (classes, size, size, channels))
    train_x, train_y = _sample(random, prototypes, train, noise)
    return Dataset(train_x, train_y, *_sample(random, prototypes, test, noise))


def _sample(
    random: np.random.RandomState, prototypes: np.ndarray, count: int, noise: float
) -> tuple[Any, Any]:
    labels = random.permutation(np.arange(count, dtype=np.int32) % len(prototypes))
    images = prototypes[labels] + random.normal(
        0, noise, (count, *prototypes.shape[1:])
    )
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8), labels
