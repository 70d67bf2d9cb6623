"""Views of one data set: pixels permuted, images rotated, labels permuted.

Not a component. A view of images is linear: pixel d of an example is the weighted sum
of k pixels of the image, `weight[d] * image[index[d]]`; k is 1 for a permutation and
4, the neighbours of a bilinear interpolation, for a rotation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.types import Key


class View(NamedTuple):
    """One view, or several stacked."""

    index: Array  # [D, k] int32
    weight: Array  # [D, k] float32
    labels: Array  # [C] int32, label y of the data set is labels[y]


def identity(shape: tuple[int, ...], classes: int) -> View:
    """Images [H, W, C] and labels as they are."""
    size = shape[0] * shape[1] * shape[2]
    index = jnp.arange(size, dtype=jnp.int32)[:, None]
    return View(index, jnp.ones((size, 1)), jnp.arange(classes, dtype=jnp.int32))


def permuted(key: Key, count: int, fraction: float) -> Array:
    """[count] int32: a permutation that moves only a random `fraction` of the places.

    The moved places are permuted among each other, uniformly; some may stay by chance.
    """
    pick_key, order_key = jax.random.split(key)
    moved = jax.random.permutation(pick_key, count)[: round(fraction * count)]
    target = jax.random.permutation(order_key, moved)
    places = jnp.arange(count, dtype=jnp.int32)
    return places.at[moved].set(target.astype(jnp.int32))


def rotated(shape: tuple[int, ...], degrees: Array) -> tuple[Array, Array]:
    """Index and weight [D, 4] of images [H, W, C] turned counter-clockwise.

    Bilinear, about the centre, 0 where a neighbour lies outside of the image.
    """
    height, width, channels = shape
    y = jnp.arange(height)[:, None] - (height - 1) / 2
    x = jnp.arange(width)[None, :] - (width - 1) / 2
    sin, cos = jnp.sin(jnp.deg2rad(degrees)), jnp.cos(jnp.deg2rad(degrees))
    row = sin * x + cos * y + (height - 1) / 2
    column = cos * x - sin * y + (width - 1) / 2
    index, weight = [], []
    for down in (0, 1):
        for right in (0, 1):
            r, c = jnp.floor(row) + down, jnp.floor(column) + right
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            share = (1 - jnp.abs(row - r)) * (1 - jnp.abs(column - c))
            place = jnp.clip(r, 0, height - 1) * width + jnp.clip(c, 0, width - 1)
            index.append(place.astype(jnp.int32).ravel())
            weight.append(jnp.where(inside, share, 0.0).ravel())
    index, weight = jnp.stack(index, 1), jnp.stack(weight, 1)  # [H W, 4]
    colours = jnp.arange(channels, dtype=jnp.int32)
    index = index[:, None] * channels + colours[:, None]
    return index.reshape(-1, 4), jnp.repeat(weight, channels, axis=0)


def seen(view: View, which: Array | None, x: Array) -> Array:
    """Pixels [B, D], scaled already, as a view shows them; `which` [B] of stacked ones."""
    if which is None:
        gathered = x[:, view.index]  # [B, D, k]
        return jnp.sum(view.weight * gathered, axis=-1)
    index, weight = view.index[which], view.weight[which]
    flat = index.reshape(len(x), -1)
    gathered = jnp.take_along_axis(x, flat, axis=1).reshape(index.shape)
    return jnp.sum(weight * gathered, axis=-1)


def relabelled(view: View, which: Array | None, y: Array) -> Array:
    """Labels [B] under a view; `which` [B] of stacked ones."""
    return view.labels[y] if which is None else view.labels[which, y]
