"""The length of a stream in tasks and in steps, and the longest change period."""

import pytest

from cl_bench.streams import label_permuted, permuted
from tests.permuted_setting import TINY, make


@pytest.mark.parametrize(
    ("options", "message"),
    [  # A pass has 24 steps.
        ({"total_steps": 47}, "steps_per_task=24, the change.*steps_per_task=23 or"),
        ({"num_tasks": 5, "total_steps": 100}, "num_tasks=4 or fewer"),
        ({"num_tasks": None}, "total_steps=None: give one of the two"),
    ],
)
def test_a_change_period_is_at_most_half_of_the_stream(options, message):
    with pytest.raises(ValueError, match=message):
        make(permuted, **options)
    spec = make(permuted, num_tasks=None, total_steps=100).spec
    assert (spec.num_tasks, spec.steps_per_task) == (4, 24)


def labelled(**options):
    small = {"dataset": "synthetic", "dataset_options": TINY, "batch_size": 4}
    return label_permuted.make(**{**small, "steps_per_task": 6, **options})


def test_the_length_in_steps_gives_the_tasks():
    spec = label_permuted.make(batch_size=1).spec
    assert (spec.num_tasks, spec.steps_per_task) == (400, 2500)
    assert labelled(num_tasks=None, total_steps=25).spec.num_tasks == 4
    assert labelled(num_tasks=3, total_steps=25).spec.num_tasks == 3
    assert labelled(num_tasks=1).spec.num_tasks == 1  # a control, asked for by number
    assert labelled(flatten=False).spec.input_shape == (4, 4, 1)
