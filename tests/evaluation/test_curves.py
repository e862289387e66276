import numpy as np
import pytest

from posedy.evaluation.analysis import calibrate, precision_recall
from posedy.evaluation.coco_eval import evaluate_keypoints


def test_means_of_the_curves_are_ap(annotations, noised_results):
    curves = precision_recall(annotations, noised_results)
    metrics = evaluate_keypoints(annotations, noised_results)
    assert curves.precision.shape == (10, 101)
    assert curves.precision.mean() == pytest.approx(metrics["AP"])
    assert curves.precision[0].mean() == pytest.approx(metrics["AP50"])
    assert (np.diff(curves.precision, axis=1) <= 0).all()
    assert (np.diff(curves.precision, axis=0) <= 1e-12).all()


def test_calibrated_scores_have_no_error():
    rng = np.random.default_rng(0)
    probabilities = rng.random(20_000)
    outcomes = rng.random(20_000) < probabilities
    assert calibrate(probabilities, outcomes).error < 0.02
    assert calibrate(probabilities / 2, outcomes).error == pytest.approx(0.25, abs=0.02)


def test_bins_hold_equally_many_by_rising_score():
    calibration = calibrate([3, 1, 2, 4, 5, 6, 0], [1, 1, 0, 0, 0, 1, 1], bins=3)
    assert calibration.count.tolist() == [3, 2, 2]
    assert calibration.score.tolist() == [1, 3.5, 5.5]
    assert calibration.outcome.tolist() == [pytest.approx(2 / 3), 0.5, 0.5]


def test_fewer_cases_than_bins_and_none():
    assert calibrate([0.5, 0.7], [1, 0]).count.tolist() == [1, 1]
    assert np.isnan(calibrate([], []).error)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, True), (-0.001, 1.02, True), (0, 30, False), (-5, 0.5, False), (0, 1.2, False)]
)
def test_scores_that_are_no_probabilities_are_known(low, high, expected):
    assert calibrate(np.linspace(low, high, 1000), np.zeros(1000)).of_probabilities == expected
    assert calibrate([], []).of_probabilities
