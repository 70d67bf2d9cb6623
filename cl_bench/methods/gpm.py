"""Gradient projection memory: kernels move only where old inputs do not reach."""

import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers, shapes
from cl_bench.methods import _freeze, _subspace
from cl_bench.methods._compose import compose
from cl_bench.types import GradTransform, Method, Network, StreamSpec

REFERENCE = (
    "Saha, Garg and Roy, ICLR 2021 (arXiv 2103.09762); released code, sahagobinda/GPM"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {
    "threshold": 0.0, "input_threshold": 0.0, "threshold_growth": 0.0, "bias": "train",
}  # fmt: skip
BIASES = ("freeze_after_first", "train")
HEADS = ("auto", "project", "train")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The released code's for permuted MNIST: SGD, step size 0.01, batches of 10.

    Its CIFAR-100: both thresholds 0.97 and threshold_growth 0.003.
    """

    step_size: float = 0.01
    threshold: float = 0.99  # energy that the memory holds of each layer's inputs
    input_threshold: float = 0.95  # of the layer that reads the stream's inputs
    threshold_growth: float = 0.0  # added to both with every task
    examples: int = struct.field(pytree_node=False, default=300)
    bias: str = struct.field(pytree_node=False, default="freeze_after_first")
    head: str = struct.field(pytree_node=False, default="auto")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist."""
    if hyper.bias not in BIASES:
        raise ValueError(f"bias={hyper.bias!r} is none of {', '.join(BIASES)}")
    if hyper.head not in HEADS:
        raise ValueError(f"head={hyper.head!r} is none of {', '.join(HEADS)}")
    if hyper.examples < 1:
        raise ValueError(f"examples={hyper.examples}: at least 1")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """G <- G - P G for every kernel's gradient G [in, out], P [in, in] = M M^T.

    At the end of each task M gains the fewest directions of the layer's inputs such
    that it holds `threshold` of their energy (`_subspace.grow`), taken of the task's
    first `examples` training examples. Threshold 0 is fine-tuning; 1 freezes kernels
    whose inputs span everything. `head`: 'auto' projects it too unless the scenario is
    'task' and each task has outputs of its own, as in the paper; 'train' leaves it
    free. A free head's bias is free as well.

    Only with SGD do the weights themselves stay in the complement: momentum from before
    a boundary, Adam's division and weight decay leave it. Memory: P of each layer;
    cost: in^2 out multiplications a layer and step.

    Raises ValueError for convolutions and for options that do not exist.
    """
    # Departs from the paper: its network has no biases. Here biases (and scales and
    # shifts of a normalisation) get no gradient after the first task, or, with
    # bias='train', go free. The released code's first task keeps one direction fewer
    # than the paper's criterion asks for; the criterion is followed.
    check(hyper)
    shapes.require_dense(shapes.kernels(net), "gpm")
    free_head = _freeze.head_is(spec, hyper.head, "train")
    sizes = {
        name: layer["kernel"].shape[0]
        for name, layer in shapes.params(net).items()
        if not (name == net.head and free_head)
    }
    readers = {module for unit in net.units for module in unit.outgoing}

    def init(state):
        del state
        return {name: jnp.zeros((size, size)) for name, size in sizes.items()}

    def update(key, clock, grads, state, own):
        del key, state
        grads = dict(grads)
        for name, projection in own.items():
            layer = dict(grads[name])
            layer["kernel"] = layer["kernel"] - projection @ layer["kernel"]
            if hyper.bias == "freeze_after_first":
                for leaf in layer.keys() - {"kernel"}:
                    layer[leaf] = jnp.where(clock.task > 0, 0.0, layer[leaf])
            grads[name] = layer
        return grads, own

    def end_task(key, clock, train, learner):
        del key
        inputs = _subspace.layer_inputs(net, spec, learner.net, train, hyper.examples)
        grown = hyper.threshold_growth * clock.task
        own = {}
        for name, projection in learner.extra["grad_transform_0"].items():
            threshold = hyper.threshold if name in readers else hyper.input_threshold
            own[name] = _subspace.grow(projection, inputs[name], threshold + grown)
        return learner._replace(extra={**learner.extra, "grad_transform_0": own})

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        grad_transforms=(GradTransform(init, update),),
        end_task=end_task,
    )
