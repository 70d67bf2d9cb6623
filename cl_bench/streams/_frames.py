"""Images in a wider frame. Not a component."""

from typing import Any

import numpy as np

from cl_bench.streams._images import Images
from cl_bench.types import Dataset


def framed(images: Images, pad: int) -> Images:
    """The same images with `pad` black pixels on each side, before they are scaled.

    [H, W, C] becomes [H + 2 pad, W + 2 pad, C]; a scale that standardises is that of the
    images without their frame. Raises ValueError for a negative pad.
    """
    if pad < 0:
        raise ValueError(f"pad={pad}: at least 0 pixels")
    if pad == 0:
        return images
    height, width, channels = images.image_shape
    shape = (height + 2 * pad, width + 2 * pad, channels)

    def wider(rows: Any) -> Any:
        pixels = np.asarray(rows).reshape(-1, *images.image_shape)
        around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        return np.pad(pixels, around).reshape(len(rows), -1)

    def load() -> Dataset:
        data = images.load()
        return data._replace(train_x=wider(data.train_x), test_x=wider(data.test_x))

    return images._replace(load=load, image_shape=shape)
