"""Weight rank: rank of the weight matrices, as a share of the largest possible one."""

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import units
from cl_bench.metrics._parts import metric
from cl_bench.metrics._ranks import singular_values
from cl_bench.types import Metric, Network, StreamSpec


def matrix_rank(matrix: Array) -> Array:
    """Singular values above sigma_1 max(m, n) eps, eps of float32; NaN of NaN.

    [m, n] -> () float32; the default tolerance of numpy and PyTorch.
    """
    values = singular_values(matrix)
    tolerance = values[0] * max(matrix.shape) * jnp.finfo(jnp.float32).eps
    return jnp.where(jnp.isnan(values[0]), jnp.nan, jnp.sum(values > tolerance))


def rank_and_largest(kernel: Array, mask: Array) -> tuple[Array, Array]:
    """Rank of one kernel, and the largest that its weights in use (`mask`) allow.

    [in, out]: that of the matrix. [kh, kw, in, out]: mean over its in * out filters of
    the rank of each [kh, kw] filter, as the released code of UPGD has it.
    """
    if kernel.ndim == 2:
        used = [jnp.sum(jnp.any(mask, axis=axis)) for axis in (0, 1)]
        return matrix_rank(kernel), jnp.minimum(*used)
    filters = jnp.moveaxis(kernel, (0, 1), (-2, -1)).reshape(-1, *kernel.shape[:2])
    used = jnp.any(mask, axis=(0, 1)).reshape(-1)
    total = jnp.sum(jnp.where(used, jax.vmap(matrix_rank)(filters), 0.0))
    number = jnp.sum(used)
    largest = jnp.where(number > 0, min(kernel.shape[:2]), 0)
    return total / jnp.maximum(number, 1), largest


def make(net: Network, spec: StreamSpec) -> Metric:
    """`weight_rank` in [0, 1] and `weight_rank/<layer>`, at each task's start.

    (sum over layers of the matrix rank) / (sum over layers of min(in, out)); of a
    convolution see `rank_and_largest` (Elsayed and Mahmood, ICLR 2024, "weight rank").
    One singular value decomposition a layer and task: seconds on a CPU core at a width
    of 2,000.

    # Departs from the paper: they average over all steps.
    """
    del spec

    def read_start(probe):
        state = probe.learner.net
        masks = units.counted(state, net.units)
        rows: dict[str, Array] = {}
        total, most = jnp.zeros(()), jnp.zeros(())
        for name, layer in state.params.items():
            if "kernel" in layer:
                kernel, mask = layer["kernel"], masks[name]["kernel"]
                rank, largest = rank_and_largest(jnp.where(mask, kernel, 0.0), mask)
                rows[f"weight_rank/{name}"] = rank / jnp.maximum(largest, 1)
                total, most = total + rank, most + largest
        return {"weight_rank": total / jnp.maximum(most, 1)} | rows

    return metric(read_start=read_start)
