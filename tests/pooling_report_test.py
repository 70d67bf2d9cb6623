"""Further seeds of a study in a workdir of their own: one study in the report."""

import numpy as np

from cl_bench import report
from cl_bench.report import studies
from cl_bench.report.pooling import pooled
from tests import report_page
from tests.report_page import read_csv
from tests.report_setting import ARMS, TASKS, make_study

tables_only = report_page.tables_only


def test_workdirs_of_one_study_with_other_seeds_are_pooled(tmp_path, tables_only):
    whole = make_study(tmp_path / "whole")
    first = make_study(tmp_path / "first", seeds=(0, 1))
    third = make_study(tmp_path / "third", seeds=(2,))
    report.build([whole])
    report.build([first, third], output=tmp_path / "both")
    for name in ("summary", "curves", "plasticity"):
        together = read_csv(tmp_path / "both" / "tables" / f"{name}.csv")
        expected = read_csv(whole / "tables" / f"{name}.csv")
        for row in (*together, *expected):
            row.pop("wall_seconds", None)  # of more groups here
        assert together == expected
    costs = read_csv(tmp_path / "both" / "tables" / "cost.csv")
    lanes = {r["group"]: r["lanes"] for r in costs if "backprop" in r["group"]}
    assert lanes["digits-backprop"] == "2" and lanes["digits-backprop (third)"] == "1"


def test_only_further_seeds_of_the_same_arms_are_pooled(tmp_path):
    load = studies.load
    one = load(make_study(tmp_path / "one", seeds=(0, 1)))
    short = load(make_study(tmp_path / "short", seeds=(2,), tasks=TASKS // 2))
    named = load(make_study(tmp_path / "named", name="else", seeds=(2,)))
    again = load(make_study(tmp_path / "again", seeds=(1, 2)))
    few = {"backprop": ARMS["backprop"]}
    part = load(make_study(tmp_path / "part", seeds=(5,), arms=few, only_tasks=3))
    assert pooled([one, short, named, again]) == [one, short, named, again]
    other = load(make_study(tmp_path / "other", seeds=(2,)))
    rough = other._replace(config={"config": {"matmul_precision": "default"}})
    assert len(pooled([one, other])) == 1 and pooled([one, rough]) == [one, rough]
    (found,) = pooled([one, part])
    matrix = studies.matrix(found, "online_accuracy")
    assert matrix.shape == (len(one.runs) + 1, TASKS)
    np.testing.assert_array_equal(matrix[:-1], studies.matrix(one, "online_accuracy"))
    np.testing.assert_allclose(matrix[-1, :3], 0.83 - 0.005 * np.arange(3) + 0.05)
    assert np.isnan(matrix[-1, 3:]).all() and found.runs[-1].seed == 5
