"""LoRA for continual learning: train a core, then merge one low-rank change a task."""

from typing import Any

from flax import struct

from cl_bench import optimizers
from cl_bench.methods import _adapters, _lora
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Reymond, project report (April 2024), section 2.1, Algorithm 1, on Hu et al., "
    "LoRA, ICLR 2022 (arXiv 2106.09685)"
)
NEEDS = frozenset({"boundaries"})
# Adapters always restrict the later tasks: no value of a setting gives backprop.
NEUTRAL: dict[str, float] | None = None


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Algorithm 1 read literally: all layers adapted, nothing else trained.

    The report leaves every field open; its alpha says "how important the LoRA weights
    are compared to the core weights".
    """

    alpha: float = 1.0
    merge_scale: float = 1.0  # the merged share of what was trained
    init_std: float = 0.02  # of A
    adapter_step_scale: float = 1.0  # times step_size, for A and B
    rank: int = struct.field(pytree_node=False, default=4)
    scaling: str = struct.field(pytree_node=False, default="absolute")
    layers: str | tuple[str, ...] = struct.field(pytree_node=False, default="all")
    train_head: bool = struct.field(pytree_node=False, default=False)
    train_bias: bool = struct.field(pytree_node=False, default=False)
    reset_optimizer: bool = struct.field(pytree_node=False, default=True)


def check(hyper: Any) -> None:
    """Raise ValueError for a rank or a scaling that cannot be."""
    _adapters.scaling(hyper.scaling, 1.0, 1)
    if hyper.rank < 1:
        raise ValueError(f"rank={hyper.rank}: at least 1")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Algorithm 1 of the report, for kernels W, with s = alpha or alpha / rank.

    1. Task 1 trains the core phi, every parameter.
    2. Before each later task phi is frozen; A ~ N(0, init_std^2), B = 0.
    3. The task trains A and B of W = phi + s B A, with the optimiser of the core and
       step size `step_size` x `adapter_step_scale`.
    4. At its end phi <- phi + merge_scale s B A.

    The report's loop is over "each task in the list", task 1 among them; as the core
    has just learned task 1, it is read as over the tasks after it.

    `layers`: 'hidden' (all but the head), 'all', or names of modules. `train_head`: the
    head (kernel and bias) is trained in full in later tasks; then it has no adapter.
    `train_bias`: biases, and scales and shifts of normalisation, train in later tasks.
    `reset_optimizer`: both optimisers start anew at each task. Statistics of
    normalisation always move. A convolution [h, w, in, out] is the matrix
    [h w in, out]. `learner.net` is the network that acts, W.

    With SGD the first step of a task moves W by -step_size adapter_step_scale s^2
    G A'A, of expectation rank (s init_std)^2 times full training's: what LoRA does must
    be held against training with a smaller step size. Memory: a copy of the adapted
    kernels, the adapters and their moments.

    Raises ValueError for a rank larger than a layer's smaller side, naming the largest
    that works; for a module that is not there; for a head both adapted and trained.
    """
    check(hyper)
    names = _adapters.adapted(net, hyper.layers, hyper.rank)
    _adapters.check_head(net, names, hyper.train_head)

    def start(key, clock, train, learner, memory):
        del clock, train, memory
        core = _adapters.kernels(learner.net.params, names)
        return _adapters.draw(key, core, hyper.rank, hyper.init_std)

    return _lora.sequential(net, spec, hyper, names, _lora.Parts(start))
