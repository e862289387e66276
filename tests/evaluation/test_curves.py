import numpy as np
import pytest

from posedy.evaluation.analysis import calibrate, compute_precision_recall
from posedy.evaluation.coco_eval import evaluate_keypoints


def test_mean_precision_of_curves_is_ap(annotations, noised_results):
    curves = compute_precision_recall(annotations, noised_results)
    metrics = evaluate_keypoints(annotations, noised_results)
    assert curves.precision.shape == (10, 101)
    assert curves.precision.mean() == pytest.approx(metrics["AP"])
    assert curves.precision[0].mean() == pytest.approx(metrics["AP50"])
    assert (np.diff(curves.precision, axis=1) <= 0).all()
    assert (np.diff(curves.precision, axis=0) <= 1e-12).all()


def test_calibration_error_is_zero_for_calibrated_scores():
    rng = np.random.default_rng(0)
    probabilities = rng.random(20_000)
    correct = rng.random(20_000) < probabilities
    assert calibrate(probabilities, correct).error < 0.02
    assert calibrate(probabilities / 2, correct).error == pytest.approx(0.25, abs=0.02)


def test_bins_have_equal_counts_and_ascending_scores():
    calibration = calibrate([3, 1, 2, 4, 5, 6, 0], [1, 1, 0, 0, 0, 1, 1], bins=3)
    assert calibration.count.tolist() == [3, 2, 2]
    assert calibration.score.tolist() == [1, 3.5, 5.5]
    assert calibration.accuracy.tolist() == [pytest.approx(2 / 3), 0.5, 0.5]


def test_calibration_accepts_fewer_samples_than_bins():
    assert calibrate([0.5, 0.7], [1, 0]).count.tolist() == [1, 1]
    assert np.isnan(calibrate([], []).error)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, True), (-0.001, 1.02, True), (0, 30, False), (-5, 0.5, False), (0, 1.2, False)]
)
def test_scores_outside_0_to_1_are_not_probabilities(low, high, expected):
    assert calibrate(np.linspace(low, high, 1000), np.zeros(1000)).is_probability == expected
    assert calibrate([], []).is_probability
