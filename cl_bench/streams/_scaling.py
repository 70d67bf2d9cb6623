"""Pixel scales: those of `_images`, and each colour channel standardised by itself.

Not a component.
"""

from typing import Any

import numpy as np

from cl_bench.registry import UnknownNameError, nearest
from cl_bench.streams import _images
from cl_bench.streams._images import Images

SCALES = (*_images.SCALES, "channel")


def scaled(images: Images, scale: str) -> Images:
    """The same images under a scale of `SCALES`.

    'channel' subtracts the mean of the training pixels of each channel and divides by
    their standard deviation (1 where a channel is constant). Raises UnknownNameError.
    """
    if scale not in SCALES:
        raise UnknownNameError(f"Unknown scale {scale!r}.{nearest(scale, SCALES)}")
    if scale != "channel":
        gain, bias = _images._affine(scale, lambda: _train_pixels(images))
        return images._replace(gain=gain, bias=bias)
    height, width, channels = images.image_shape
    pixels = _train_pixels(images).reshape(-1, channels)
    moments = np.array([_moments(pixels[:, c]) for c in range(channels)], np.float32)
    mean, std = np.tile(moments.T, height * width)  # [D] each, D = H * W * C
    return images._replace(gain=1 / std, bias=-mean / std)


def _train_pixels(images: Images) -> Any:
    return np.asarray(images.load().train_x[: images.num_train])


def _moments(pixels: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of uint8 values, from their histogram."""
    counts, values = np.bincount(pixels, minlength=256), np.arange(256)
    mean = np.average(values, weights=counts)
    variance = np.average((values - mean) ** 2, weights=counts)
    return float(mean), float(np.sqrt(variance)) or 1.0
