"""Intervals of known values; ratios; tables."""

import numpy as np
import pytest

from eval.estimates import bootstrap, markdown_table, mean, ratio, share


def test_intervals() -> None:
    found = share([True] * 8 + [False] * 2)
    assert found is not None
    assert found == (0.8, pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4), 10)  # Wilson 1927
    assert share([True] * 10) == (1, pytest.approx(0.7225, abs=1e-4), 1, 10)
    values = np.random.default_rng(1).normal(5, 1, 100)
    low, high = mean(values.tolist())[1:3]
    assert low == pytest.approx(values.mean() - 0.196, abs=0.05)
    assert high == pytest.approx(values.mean() + 0.196, abs=0.05)


def test_ratios_are_of_means_and_paired() -> None:
    assert ratio([1.0, 3.0], [2.0, 2.0])[0] == 1
    below = np.arange(1.0, 30.0)
    assert ratio((below / 4).tolist(), below.tolist()) == (0.25, pytest.approx(0.25), pytest.approx(0.25), 29)
    assert mean([1.0, None, 2.0])[0] == 1.5


def test_what_was_not_measured_has_no_value() -> None:
    assert share([]) is None and mean([]) is None and mean([None]) is None
    assert ratio([1.0], [0.0]) is None
    assert mean([2.0]) == (2.0, None, None, 1)
    assert bootstrap(lambda chosen: float("nan"), 3) is None


def test_cells_cannot_break_a_table() -> None:
    assert markdown_table(("a", "b"), [("x|y", "1\n2")]) == "| a | b |\n| --- | --- |\n| x\\|y | 1 2 |"
