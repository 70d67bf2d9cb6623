"""Convolution and max-pooling that are fast inside scans and under vmap.

Two ways to convolve, `CONVS`. 'patches' puts the inputs that an output reads side by
side and multiplies matrices: one product for all of a kernel, or (unless an input has
few channels) one for each of its rows; under vmap they are batched products. 'direct'
is XLA's own convolution, which holds 3 to 25 times less memory, but: vmapped over lanes
it becomes a grouped convolution, and on a CPU a training step is 9 to 22 times slower
with it inside a scan, where every step of a run is, than outside of one.
`experiments/conv_speed.py` measures both.
"""

import jax.numpy as jnp
from jax import Array, lax

from cl_bench.types import NetState

CONVS = ("patches", "direct")
# Below so many inputs in a kernel's row, the rows are multiplied together: on a CPU that
# is faster for 15 of them (5 places of 3 channels), and slower for 80 and more.
NARROW = 32


def check(kind: str) -> None:
    """Raise ValueError for a way to convolve that does not exist."""
    if kind not in CONVS:
        raise ValueError(f"conv {kind!r} is none of {sorted(CONVS)}")


def conv(
    kind: str, x: Array, kernel: Array, *, stride: int = 1, padding: int = 0
) -> Array:
    """Cross-correlation, as in PyTorch: [B, H, W, C], [h, w, C, U] -> [B, H', W', U].

    `padding` zeros go around the image; H' = (H + 2 padding - h) // stride + 1.
    """
    if kind == "direct":
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((padding, padding), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width, _, size = kernel.shape
    rows = _windows(x, 2, width, stride)  # [B, H, W', width C]
    shifted = _shifts(rows, 1, height, stride)
    if rows.shape[-1] < NARROW:
        shifted = [jnp.concatenate(shifted, axis=3)]
    parts = kernel.reshape(len(shifted), -1, size)
    # Long matrices: a product with four leading axes is slower on a CPU.
    products = [
        s.reshape(-1, s.shape[-1]) @ part
        for s, part in zip(shifted, parts, strict=True)
    ]
    out = sum(products[1:], products[0])
    return out.reshape(*shifted[0].shape[:-1], size)


def _shifts(x: Array, axis: int, size: int, stride: int) -> list[Array]:
    """For each of `size` places in a window, that entry of every window on an axis."""
    last = x.shape[axis] - size + 1
    return [lax.slice_in_dim(x, i, i + last, stride, axis) for i in range(size)]


def _windows(x: Array, axis: int, size: int, stride: int) -> Array:
    """The windows of an axis, their entries side by side in the last, [..., size C]."""
    return jnp.concatenate(_shifts(x, axis, size, stride), axis=3)


def max_pool(x: Array, size: int, *, by: Array | None = None) -> Array:
    """Largest of each size x size window: [B, H, W, ...] -> [B, H // size, W // size, ...].

    With `by` (like x) it is the entry of x where `by` is largest. Of equal entries the
    first gets the whole gradient, and NaN wins, as in PyTorch; rows and columns that
    fill no window are left out.
    """
    # Not lax.reduce_window, nor slices of x: their gradients (select-and-scatter, padding
    # between the entries) are slow on a CPU; a convolutional step takes 14 % longer.
    high, wide = (n // size * size for n in x.shape[1:3])
    place = _first_largest(lax.stop_gradient(x if by is None else by), size)
    split = (x.shape[0], high // size, size, wide // size, size, *x.shape[3:])
    row, column = (lax.broadcasted_iota(jnp.int32, split, axis) for axis in (2, 4))
    won = size * row + column == place[:, :, None, :, None]
    return jnp.where(won, x[:, :high, :wide].reshape(split), 0.0).sum((2, 4))


def _first_largest(x: Array, size: int) -> Array:
    """The place in its window, 0 to size^2 - 1, of the first largest entry, or of NaN."""
    high, wide = (n // size * size for n in x.shape[1:3])
    best = x[:, :high:size, :wide:size]
    place = jnp.zeros(best.shape, jnp.int32)
    for i in range(1, size * size):
        row, column = divmod(i, size)
        entry = x[:, row:high:size, column:wide:size]
        larger = (entry > best) | jnp.isnan(entry)
        best, place = jnp.where(larger, entry, best), jnp.where(larger, i, place)
    return place


def kernel_of(net: NetState, name: str) -> Array:
    """The kernel of a module with its forbidden edges at 0."""
    kernel = net.params[name]["kernel"]
    if net.edges is not None and name in net.edges:
        return jnp.where(net.edges[name], kernel, 0.0)
    return kernel
