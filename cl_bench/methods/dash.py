"""DASH: direction-aware shrinking at a boundary, where new data come."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.losses import mask_logits, weighted_mean
from cl_bench.methods._compose import compose
from cl_bench.schedule import epoch_steps
from cl_bench.types import Method, NetState, Network, PyTree, StreamSpec, TrainBatches

REFERENCE = (
    "Shin et al., NeurIPS 2024; written from a secondary source, the port "
    "NAVER-INTEL-Co-Lab/gaudi-dash"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"floor": 1.0}  # nothing shrinks


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """lambda, alpha and the optimiser of the port."""

    step_size: float = 0.001
    optimizer: str = struct.field(pytree_node=False, default="momentum")  # 0.9
    floor: float = 0.3  # lambda: no weight shrinks below this share of itself
    alpha: float = 0.3  # weight of each new mini-batch in the averaged gradient


def check(hyper: Hyper) -> None:
    """Raise ValueError for a weight beyond 1."""
    if hyper.alpha > 1.0:
        raise ValueError(f"alpha={hyper.alpha}: a mini-batch's weight, from 0 to 1")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """At every boundary but the first: w <- w clip(cos(G, w), floor, 1).

    G is a moving average of the negative gradient over one pass of the new task's
    mini-batches, at the weights of the boundary: G <- (1 - alpha) G - alpha g. The
    cosine is taken per output unit of a dense layer, per pair of output and input
    channel of a convolution, and once for each bias; normalisations stay as they are.
    Zero vectors have cosine 0. The optimiser's moments stay. Raises ValueError where
    the benchmark sets the head to 0 at a boundary: no gradient passes it, and every
    hidden weight would shrink to its floor, whatever its direction.
    """
    if spec.reset_head:
        raise ValueError(
            "dash looks at gradients at a boundary, and the benchmark resets the head "
            "there: behind zeros there are none. reset_head=False on the stream works, "
            "and so does boundary_shrink_perturb"
        )
    epochs = epoch_steps(spec)

    def averaged(key, task, train: TrainBatches, state: NetState) -> PyTree:
        def loss(params, i):
            batch, own = train(i), jax.random.fold_in(key, i)
            at = state._replace(params=params)
            logits, _, _ = net.apply(at, batch.x, train=True, key=own)
            logits = mask_logits(logits, batch.classes)
            return weighted_mean(spec.loss.per_example(logits, batch.y), batch.weight)

        def body(i, mean):
            grads = jax.grad(loss)(state.params, i)
            a = hyper.alpha
            return jax.tree.map(lambda m, g: (1.0 - a) * m - a * g, mean, grads)

        def within(i, mean):  # a shorter task than the longest ends after its own pass
            own = i < jnp.asarray(epochs)[task]
            return jax.lax.cond(own, body, lambda i, mean: mean, i, mean)

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        each = within if epochs.min() < epochs.max() else body
        return jax.lax.fori_loop(0, int(epochs.max()), each, zeros)

    def start_task(key, clock, train, learner):
        def shrink(state):
            direction = averaged(key, clock.task, train, state)
            params = {
                name: {**layer, **_shrunk(layer, direction[name], hyper.floor)}
                for name, layer in state.params.items()
            }
            return state._replace(params=params)

        state = jax.lax.cond(clock.step > 0, shrink, lambda s: s, learner.net)
        return learner._replace(net=state)

    return compose(net, spec, optimizers.make(hyper), start_task=start_task)


def _shrunk(layer: PyTree, direction: PyTree, floor: Array | float) -> PyTree:
    """Kernel and bias of a module, shrunk where they do not point along `direction`."""
    return {
        leaf: layer[leaf] * jnp.clip(cosine(layer[leaf], direction[leaf]), floor, 1.0)
        for leaf in ("kernel", "bias")
        if leaf in layer
    }


def cosine(w: Array, g: Array) -> Array:
    """Cosine of weight and direction, broadcastable over w: see `make` for the groups."""
    axes = {1: (0,), 2: (0,), 4: (0, 1)}[w.ndim]
    dot = jnp.sum(w * g, axis=axes, keepdims=True)
    lengths = jnp.linalg.norm(w, axis=axes, keepdims=True) * jnp.linalg.norm(
        g, axis=axes, keepdims=True
    )
    return jnp.where(lengths > 0.0, dot / jnp.where(lengths > 0.0, lengths, 1.0), 0.0)
