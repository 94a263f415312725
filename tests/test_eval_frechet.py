"""The Frechet distance on Gaussians of known distance, gathered in pieces; its interval."""

import logging

import numpy as np
import pytest
from golden_recipe import load_case

from eval.metrics.distribution import Gaussian, distance_estimate, frechet_distance, gather, set_distance
from latentsync.errors import InputError


def exact(mean: list[float], covariance: np.ndarray) -> Gaussian:
    """A Gaussian that is known, as if very many features had been seen."""
    found = Gaussian()
    found.count, found.mean, found.scatter = 1001, np.array(mean, float), 1000 * np.asarray(covariance, float)
    return found


def test_reference_numbers() -> None:
    details, tensors = load_case("eval_fvd")
    first, second = tensors["feats_a"].numpy(), tensors["feats_b"].numpy()
    pieces = gather([first[:1], first[1:10], first[10:10], first[10:]])
    np.testing.assert_allclose(pieces.mean, tensors["mu_a"].numpy(), rtol=1e-12)
    np.testing.assert_allclose(pieces.covariance, tensors["sigma_a"].numpy(), rtol=1e-9, atol=1e-12)
    rtol = details["tolerance"]["rtol"]
    assert set_distance([first], [second]) == pytest.approx(float(tensors["fvd"]), rel=rtol)
    assert set_distance([first[:5]], [second[:6]]) == pytest.approx(float(tensors["fvd_rank_deficient_a5_b6"]), rel=1e-2)


def test_known_distances() -> None:
    one = np.eye(3)
    assert frechet_distance(exact([0, 0, 0], one), exact([0, 3, 4], one)) == pytest.approx(25)  # means alone
    assert frechet_distance(exact([0, 0, 0], one), exact([0, 0, 0], 9 * one)) == pytest.approx(3 * (3 - 1) ** 2)  # widths alone
    turned = np.array([[2.0, 1.0], [1.0, 2.0]])  # eigenvalues 1 and 3
    away = (np.sqrt(3) - 1) ** 2
    assert frechet_distance(exact([0, 0], turned), exact([0, 0], np.eye(2))) == pytest.approx(away)
    assert frechet_distance(exact([0, 0], turned), exact([0, 0], turned)) == pytest.approx(0, abs=1e-12)
    flat = np.diag([4.0, 0.0])  # no inverse
    assert frechet_distance(exact([0, 0], flat), exact([0, 0], np.diag([0.0, 1.0]))) == pytest.approx(5)


def test_pieces_are_the_whole() -> None:
    features = np.random.default_rng(0).normal(1e3, 1, (101, 5))  # far from 0, where sums of squares would lose digits
    whole, merged = gather([features]), gather([features[:7]])
    merged.merge(gather(list(np.split(features[7:], [1, 30]))))
    merged.merge(Gaussian())
    np.testing.assert_allclose(merged.covariance, np.cov(features.T), rtol=1e-9)
    assert frechet_distance(whole, merged) == pytest.approx(0, abs=1e-9)


def test_too_few_features(caplog: pytest.LogCaptureFixture) -> None:
    features = np.random.default_rng(0).normal(size=(9, 4))
    with pytest.raises(InputError, match="A set of 1 features has no covariance"):
        set_distance([features[:1]], [features])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        set_distance([features], [features])
        assert not caplog.records
        set_distance([features[:4]], [features])
    assert "Sets of 4 and 9 features of 4 numbers" in caplog.text


def test_the_interval_holds_the_truth() -> None:
    rng, hits = np.random.default_rng(1), 0
    for _ in range(20):
        made, real = ([rng.normal(mean, 1, (10, 2)) for _ in range(20)] for mean in (0.5, 0))
        found = distance_estimate(made, real)
        assert found.low < found.value < found.high and found.count == 20
        hits += found.low <= 0.5 <= found.high  # two means half a unit apart in either direction
    assert hits >= 16
    assert distance_estimate(made[:1], real)[1:] == (None, None, 1)
    assert distance_estimate([*made, np.zeros((0, 0))], real).count == 20
