"""ReDo: recycle dormant units, those that are hardly active beside their layer."""

from flax import struct

from cl_bench import optimizers
from cl_bench.methods import _unit_resets
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Sokar, Agarwal, Castro and Evci, ICML 2023 (arXiv 2302.12902), Algorithm 1; "
    "released code, google/dopamine labs/redo; source='initial' with "
    "moment_reset='none' is the variant of Kumar, Marklund and Van Roy, CoLLAs 2024, "
    "released code"
)
NEEDS: frozenset[str] = frozenset()
# A negative share of the mean: no unit is below it (`_unit_resets.low_scores`).
NEUTRAL = {"threshold": -1.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """tau and period of the paper; statistics of one mini-batch.

    Batches of one example need `statistics='average'`.
    """

    threshold: float = 0.1  # tau
    decay: float = 0.99  # of the moving average, 'average' only
    period: int = struct.field(pytree_node=False, default=1_000)  # steps
    statistics: str = struct.field(pytree_node=False, default="batch")
    source: str = struct.field(pytree_node=False, default="fresh")
    moment_reset: str = struct.field(pytree_node=False, default="moments")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist or does not fit another."""
    _unit_resets.check(hyper)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Every `period` steps, units with E|h_i| / mean_k E|h_k| <= tau start anew.

    Eq. 1 of the paper, convolutions averaged over positions too. Incoming weights are
    drawn afresh, biases and outgoing weights are 0 (`source='initial'`: incoming weights
    and biases are those of the start of the run); the readers' biases and the output
    layer's own units stay. Activations are those of the step's forward pass.
    # Departs from the paper: fresh weights come from the network's own initialiser,
    # where the released code draws Xavier-uniform ones. Of a convolution the activations
    # after the pool are looked at; the released codes take those before it, so that the
    # same tau > 0 is another threshold there (at 0, with ReLU, the same units are found).
    """
    _unit_resets.require_hidden_layer(net, "redo")
    check(hyper)
    _unit_resets.require_several(spec, hyper)

    def score(signals):
        return _unit_resets.mean_magnitude(net, signals.acts)

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        transforms=(_unit_resets.reset_by_score(net, hyper, score),),
        moment_reset=hyper.moment_reset,
    )
