"""The numpy metrics against numbers worked out by hand."""

import numpy as np
import pytest

from tests.oracle_setting import TINY
from tests.reference import metrics


def test_unit_metrics_by_hand():
    h = np.zeros((200, 4))
    h[0, 1] = 1.0  # active on 0.5 % of the examples
    h[:2, 2] = -1.0  # active on exactly 1 %
    h[:, 3] = 1.0
    assert metrics.dead_units(h) == 1
    assert metrics.dormant_units_dohare(h) == 2  # strictly less than 1 %
    # mean |h| = (0, .005, .01, 1), their mean .25375: scores 0, .0197, .0394, 3.94
    assert metrics.dormant_units_sokar(h, 0.0) == 1
    assert metrics.dormant_units_sokar(h, 0.025) == 2
    assert metrics.dormant_units_sokar(h, 0.1) == 3
    assert metrics.dormant_units_sokar(np.zeros((5, 3)), 0.0) == 3
    assert metrics.zero_activation_fraction({"h1": h[:1], "h2": h[2:3]}) == 4 / 8


def test_ranks_by_hand():
    assert metrics.effective_rank(np.eye(3)) == pytest.approx(3.0)
    # p = (3/4, 1/4): exp(3/4 ln 4/3 + 1/4 ln 4) = 4 / 3^(3/4)
    assert metrics.effective_rank(np.diag([3.0, 1.0])) == pytest.approx(4 / 3**0.75)
    h = np.diag([10.0, 1.0])  # squares 100/101 = .9901; absolute 10/11 = .909
    assert metrics.approximate_rank(h) == 1
    assert metrics.abs_approximate_rank(h) == 2
    assert metrics.srank_kumar(h) == 1
    assert metrics.approximate_rank(np.diag([9.0, 1.0])) == 2  # 81/82 = .988
    zero = np.zeros((3, 2))
    assert metrics.effective_rank(zero) == metrics.approximate_rank(zero) == 0


def test_magnitudes_and_plasticity_by_hand():
    assert metrics.weight_magnitude(TINY) == pytest.approx((2 + 10) / 6)
    assert metrics.parameter_magnitude(TINY) == pytest.approx((2 + 1 + 10) / 10)
    assert metrics.sample_plasticity(2.0, 0.5) == 0.75
    assert metrics.sample_plasticity(1.0, 3.0) == 0.0
    assert metrics.sample_plasticity(0.0, 0.0) == 1.0
    assert metrics.sample_plasticity(0.0, 5e-9) == 0.5
