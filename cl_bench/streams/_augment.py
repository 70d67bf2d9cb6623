"""Random flips, crops and rotations of images; each only moves pixels.

Not a component. Flip, then crop out of the padded image, then rotate: each output
pixel reads one input pixel, so that the three are one gather.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.types import Key

PADDING, DEGREES = 4, 15.0


def augment(
    key: Key, x: Array, *, padding: int = PADDING, degrees: float = DEGREES
) -> Array:
    """Images [B, H, W, C], each with its own flip, shift and angle.

    A horizontal flip with probability 1/2; a crop of the original size, uniformly
    placed in the image padded by `padding` pixels of its reflection (the border is
    not repeated); a rotation about the centre by an angle uniform in [0, `degrees`],
    counter-clockwise, by the nearest pixel, 0 where it reads outside. The defaults and
    this order are those of the class-incremental CIFAR-100 of Dohare et al. (2024),
    whose rotation is torchvision's RandomRotation.
    """

    def one(key: Key, image: Array) -> Array:
        flip_key, shift_key, angle_key = jax.random.split(key, 3)
        flip = jax.random.bernoulli(flip_key)
        shift = jax.random.randint(shift_key, (2,), -padding, padding + 1)
        angle = jax.random.uniform(angle_key, maxval=jnp.deg2rad(degrees))
        return move(image, flip, shift, angle)

    return jax.vmap(one)(jax.random.split(key, len(x)), x)


def check_crop(dataset: str, shape: tuple[int, ...], padding: int) -> None:
    """Raise ValueError for a crop padded by a side of the image [H, W, C] or more."""
    smallest = min(shape[:2])
    if not 0 <= padding < smallest:
        raise ValueError(
            f"crop_padding={padding}: a reflection of {dataset}'s {shape[0]} x "
            f"{shape[1]} images has at most {smallest - 1} pixels; crop_padding="
            f"{smallest - 1} or augment=False works."
        )


def check_degrees(degrees: float) -> None:
    """Raise ValueError for a largest angle that is negative or not finite."""
    if not 0 <= degrees < math.inf:
        raise ValueError(
            f"max_degrees={degrees}: the largest angle, finite and 0 or more; 0 leaves "
            "images upright."
        )


def move(image: Array, flip: Array, shift: Array, angle: Array) -> Array:
    """Image [H, W, C] flipped if `flip`, shifted by [2] pixels, rotated by radians.

    A shift of (1, 0) reads one row further down: the image moves up.
    """
    height, width = image.shape[:2]
    row, column, inside = _rotated(height, width, angle)
    row = _reflected(row + shift[0], height)
    column = _reflected(column + shift[1], width)
    column = jnp.where(flip, width - 1 - column, column)
    return jnp.where(inside[..., None], image[row, column], 0.0)


def _rotated(height: int, width: int, angle: Array) -> tuple[Array, Array, Array]:
    """Where each pixel [H, W] comes from: row, column, and whether that is inside."""
    y = jnp.arange(height)[:, None] - (height - 1) / 2
    x = jnp.arange(width)[None, :] - (width - 1) / 2
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    row = jnp.round(sin * x + cos * y + (height - 1) / 2).astype(jnp.int32)
    column = jnp.round(cos * x - sin * y + (width - 1) / 2).astype(jnp.int32)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1), inside


def _reflected(i: Array, size: int) -> Array:
    """Index i of a row of `size` pixels that is mirrored at its first and last one."""
    i = jnp.abs(i)
    return jnp.where(i < size, i, 2 * (size - 1) - i)
