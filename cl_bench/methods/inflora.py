"""InfLoRA: adapters that read only what old inputs do not span."""

import math

import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import linalg, optimizers, shapes
from cl_bench.methods import _adapters, _lora, _subspace, lora
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Liang and Li, CVPR 2024 (arXiv 2404.00228); released code, liangyanshuo/InfLoRA"
)
NEEDS = frozenset({"boundaries"})
# Adapters always restrict the later tasks: no value of a setting gives backprop.
NEUTRAL: dict[str, float] | None = None


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The released code's for CIFAR-100: rank 10, energies from 0.95 to 1."""

    alpha: float = 1.0
    merge_scale: float = 1.0
    adapter_step_scale: float = 1.0  # times step_size, for B
    first_threshold: float = 0.95
    last_threshold: float = 1.0
    examples: int = struct.field(pytree_node=False, default=1000)
    rank: int = struct.field(pytree_node=False, default=10)
    scaling: str = struct.field(pytree_node=False, default="absolute")
    layers: str | tuple[str, ...] = struct.field(pytree_node=False, default="hidden")
    train_head: bool = struct.field(pytree_node=False, default=True)
    train_bias: bool = struct.field(pytree_node=False, default=False)
    reset_optimizer: bool = struct.field(pytree_node=False, default=True)


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that cannot be."""
    lora.check(hyper)
    if hyper.examples < hyper.rank:
        raise ValueError(
            f"examples={hyper.examples}: A of rank {hyper.rank} is taken from as many "
            f"examples at least; set examples={hyper.rank} or more"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """`lora` with A fixed: A_t = U_r^T / sqrt(3); only B_t is trained, then merged.

    U_r are the first `rank` left singular vectors of (I - P) X, X [in, n] the inputs of
    the layer over the new task's first `examples` examples (at most one pass), at its
    start. P projects onto old inputs: at the end of task t (of T, from 0) it gains
    directions until it holds first_threshold + (last_threshold - first_threshold) t / T
    of the energy (`_subspace.grow`). Directions that are not there have A = 0, so B
    learns nothing for them. Memory: P [in, in] a layer.

    Raises ValueError as `lora` does, and for convolutions and too few examples.
    """
    # Departs from the paper: there a pretrained model is the core; here the first task
    # trains it. DualGPM keeps the smaller of the bases of P and of its complement: less
    # memory, the same P. The released code takes the directions of X X^T over the whole
    # task, and counts the squares of its singular values as energies.
    check(hyper)
    shapes.require_dense(shapes.kernels(net), "inflora")
    names = _adapters.adapted(net, hyper.layers, hyper.rank)
    _adapters.check_head(net, names, hyper.train_head)
    count = min(hyper.examples, spec.examples_per_task)
    if count < hyper.rank:
        raise ValueError(
            f"rank={hyper.rank}: a task has {count} examples, rank={count} is the "
            "largest that inflora can take from them"
        )

    def read(state, train):
        return _subspace.layer_inputs(net, spec, state, train, hyper.examples)

    def memory(state):
        return {
            name: jnp.zeros((len(kernel), len(kernel)))
            for name, kernel in _adapters.kernels(state.params, names).items()
        }

    def start(key, clock, train, learner, past):
        del key, clock
        inputs = read(learner.net, train)
        core = _adapters.kernels(learner.net.params, names)
        adapters = _adapters.blank(core, hyper.rank)
        for name, projection in past.items():
            a = new_directions(projection, inputs[name], hyper.rank) / math.sqrt(3.0)
            adapters[name] = {**adapters[name], "a": a}
        return adapters

    def remember(clock, train, learner, past):
        share = clock.task / spec.num_tasks
        rise = hyper.last_threshold - hyper.first_threshold
        threshold = hyper.first_threshold + rise * share
        inputs = read(learner.net, train)
        return {n: _subspace.grow(p, inputs[n], threshold) for n, p in past.items()}

    parts = _lora.Parts(start, memory=memory, remember=remember, train_a=False)
    return _lora.sequential(net, spec, hyper, names, parts)


def new_directions(projection: Array, inputs: Array, rank: int) -> Array:
    """The first left singular vectors of (I - P) X, inputs X^T [n, D]: [rank, D].

    Rows of 0 where what is left has fewer directions.
    """
    r = inputs.T
    u, s, _ = linalg.svd(r - projection @ r)
    total = jnp.sqrt(jnp.sum(jnp.square(r)))
    real = s > _subspace.ROUNDING * max(r.shape) * total
    return jnp.where(real, u, 0.0)[:, :rank].T
