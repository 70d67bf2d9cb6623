"""Convolution and max-pooling that are as fast inside scans and under vmap as alone.

Two ways to convolve, `CONVS`. 'patches' copies the inputs of each output position into
a row and multiplies matrices; under vmap it is a batched product. 'direct' is XLA's own
convolution, which holds 9 or 25 times less memory, but: vmapped over lanes it becomes a
grouped convolution, and on a CPU its gradients are 5 to 80 times slower inside a scan
than outside of one, where every training step of a run is. `experiments/conv_speed.py`
measures both.
"""

import jax.numpy as jnp
from jax import Array, lax

from cl_bench.types import NetState

CONVS = ("patches", "direct")


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
    rows = _patches(x, kernel.shape[0], kernel.shape[1], stride)
    # One long matrix: a product with four leading axes is slower on a CPU.
    out = rows.reshape(-1, rows.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return out.reshape(*rows.shape[:-1], kernel.shape[-1])


def _patches(x: Array, height: int, width: int, stride: int) -> Array:
    """[B, H, W, C] -> [B, H', W', height width C], in the order of a kernel's axes.

    First along the rows, then along the columns: fewer and longer copies.
    """

    def windows(x: Array, axis: int, size: int) -> Array:
        if size == 1 and stride == 1:
            return x
        last = x.shape[axis] - size + 1
        shifted = [lax.slice_in_dim(x, i, i + last, stride, axis) for i in range(size)]
        return jnp.concatenate(shifted, axis=3)

    return windows(windows(x, 2, width), 1, height)


def max_pool(x: Array, size: int, *, by: Array | None = None) -> Array:
    """Largest of each size x size window: [B, H, W, ...] -> [B, H // size, W // size, ...].

    With `by` (like x) it is the entry of x where `by` is largest. Of equal entries the
    first gets the whole gradient, and NaN wins, as in PyTorch; rows and columns that
    fill no window are left out.
    """
    # Not lax.reduce_window: its gradient (select-and-scatter) is slow on a CPU.
    high, wide = (n // size * size for n in x.shape[1:3])
    scores = lax.stop_gradient(x if by is None else by)
    best, score = x[:, :high:size, :wide:size], scores[:, :high:size, :wide:size]
    for place in range(1, size * size):
        i, j = divmod(place, size)
        at = (slice(None), slice(i, high, size), slice(j, wide, size))
        larger = (scores[at] > score) | jnp.isnan(scores[at])
        best = jnp.where(larger, x[at], best)
        score = jnp.where(larger, scores[at], score)
    return best


def kernel_of(net: NetState, name: str) -> Array:
    """The kernel of a module with its forbidden edges at 0."""
    kernel = net.params[name]["kernel"]
    if net.edges is not None and name in net.edges:
        return jnp.where(net.edges[name], kernel, 0.0)
    return kernel
