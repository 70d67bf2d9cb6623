"""Test accuracy: score on held-out examples of the current task."""

from cl_bench.metrics import _held_out
from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, Probe, StreamSpec


def make(
    net: Network, spec: StreamSpec, *, minibatches: int = 10, segments: bool = False
) -> Metric:
    """`test_accuracy` in [0, 1] and `test_loss` at the end of each task.

    Means over the examples of the first `minibatches` minibatches of the task's 'test'
    split, after the method's end_task. How large a minibatch is, is the stream's affair
    (`held_out_batch`, 100 in most): 10 of them are 1,000 examples. Rows past the end of
    the split have weight 0 and do not count, so a number too large costs nothing. One
    minibatch at a time is in memory.

    `segments=True` adds `segment_test_accuracy`, the same at each segment's end, before
    end_task: the records have a row a segment, and the report shows the task's last.

    Raises ValueError where `minibatches` < 1, and for a stream without test examples.
    """
    del net
    _held_out.check(spec, minibatches)

    def score(probe: Probe):
        return _held_out.scores(spec, probe, probe.clock.task, minibatches)

    def read_segment(state, probe):
        del state
        return {"segment_test_accuracy": score(probe)[0]} if segments else {}

    def read(state, probe):
        del state
        accuracy, loss = score(probe)
        return {"test_accuracy": accuracy, "test_loss": loss}

    return metric(read_segment=read_segment, read=read)
