"""DER++: dark experience replay that also trains on the labels of stored examples."""

from flax import struct

from cl_bench.methods import der
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Buzzega et al., NeurIPS 2020 (arXiv 2004.07211), Algorithm 2; released code "
    "(aimagelab/mammoth)"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"alpha": 0.0, "beta": 0.0}


@struct.dataclass
class Hyper(der.Hyper):
    """Split CIFAR-10 with 500 stored examples. At beta = 0 this is DER."""

    alpha: float = 0.2
    beta: float = 0.5


check = der.check


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """L(batch) + alpha mean ||z' - f(x')||^2 + beta L(x'', y''), x' and x'' drawn
    independently from one reservoir. The rest is as in `der.make`.
    """
    return der.with_labels(net, spec, hyper, hyper.beta)
