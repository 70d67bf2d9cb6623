"""GraMa: reset the units whose incoming weights receive hardly any gradient."""

from flax import struct

from cl_bench import optimizers, units
from cl_bench.methods import _unit_resets, redo
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Liu, Wu, Obando-Ceron, Castro, Courville and Pan, NeurIPS 2025 (arXiv 2505.24061), "
    "GraMa and ReGraMa; from a secondary source: ReDo with the gradient's magnitude in "
    "place of the activation's"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"threshold": -1.0}  # no score is below a negative share of the mean


@struct.dataclass
class Hyper(redo.Hyper):
    """Those of ReDo, with a tau of about the paper's; statistics of one mini-batch."""

    threshold: float = 0.01  # tau


check = redo.check


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Every `period` steps, units with G_i / mean_k G_k <= tau start anew.

    G_i is the mean of |dL/dw| over the unit's incoming weights, biases left out. It
    finds units that are active and yet do not learn, whatever their activation. The
    reset is ReDo's. (Another description has the gradient at the unit's activation; the
    paper's code could not be read.)
    """
    _unit_resets.require_hidden_layer(net, "grama")
    check(hyper)
    _unit_resets.require_several(spec, hyper)

    def score(signals):
        return {u.name: units.incoming_magnitude(signals.grads, u) for u in net.units}

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        transforms=(_unit_resets.reset_by_score(net, hyper, score),),
        moment_reset=hyper.moment_reset,
    )
