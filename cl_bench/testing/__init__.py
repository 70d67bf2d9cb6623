"""The conformance suite: does a component keep its contract?

Each check takes the component's module, built-in or a user's own, and raises
`ConformanceError` saying what is broken and how:

    from cl_bench import registry, testing
    testing.check_method(registry.load("methods", "my_package.my_method"))

Everything runs on problems of a few units and examples, in seconds.
"""

from cl_bench.testing._compare import ConformanceError
from cl_bench.testing._method import check_method
from cl_bench.testing._metric import check_metric
from cl_bench.testing._network import check_network
from cl_bench.testing._stream import check_stream
from cl_bench.testing._tiny import tiny_network, tiny_stream

__all__ = [
    "ConformanceError",
    "check_method",
    "check_metric",
    "check_network",
    "check_stream",
    "tiny_network",
    "tiny_stream",
]
