import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posedy.oks import oks_matrix, oks_nms
from posedy.skeleton import COCO17

SIGMAS = COCO17.sigmas


def reference_nms(keypoints, scores, areas, threshold):
    oks = oks_matrix(keypoints, areas, SIGMAS)
    kept = []
    for pose in sorted(range(len(scores)), key=lambda index: -scores[index]):
        if all(oks[pose, other] <= threshold for other in kept):
            kept.append(pose)
    return kept


@st.composite
def crowded_poses(draw):
    """Several predictions of each of a few persons, some with equal scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 12))
    persons = rng.uniform(0, 300, (3, 17, 2))
    keypoints = persons[rng.integers(0, 3, count)] + rng.normal(0, 6, (count, 17, 2)) * rng.random((count, 1, 1))
    return keypoints, rng.integers(0, 5, count) / 4, rng.uniform(1000, 20000, count)


@given(crowded_poses(), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_nms_agrees_with_a_loop(case, threshold):
    keypoints, scores, areas = case
    kept = oks_nms(keypoints, scores, areas, SIGMAS, threshold)
    assert kept.dtype == np.intp
    assert kept.tolist() == reference_nms(keypoints, scores, areas, threshold)


@given(crowded_poses())
def test_kept_poses_are_sorted_by_score_and_dissimilar(case):
    keypoints, scores, areas = case
    kept = oks_nms(keypoints, scores, areas, SIGMAS)
    assert (np.diff(scores[kept]) <= 0).all()
    oks = oks_matrix(keypoints[kept], areas[kept], SIGMAS)
    assert (oks - np.eye(len(kept)) <= 0.9).all()


def test_suppressed_pose_does_not_suppress():
    # The second pose is near the first, and the third near the second only.
    keypoints = np.zeros((3, 17, 2)) + np.array([0.0, 6.0, 12.0])[:, None, None]
    areas = np.full(3, 10000.0)
    oks = oks_matrix(keypoints, areas, SIGMAS)
    threshold = (oks[0, 1] + oks[0, 2]) / 2
    assert oks_nms(keypoints, [0.9, 0.8, 0.7], areas, SIGMAS, threshold).tolist() == [0, 2]


def test_equal_scores_keep_their_order():
    keypoints = np.zeros((4, 17, 2)) + np.array([0.0, 500.0, 0.0, 900.0])[:, None, None]
    assert oks_nms(keypoints, [0.5, 0.5, 0.5, 0.5], np.full(4, 900.0), SIGMAS).tolist() == [0, 1, 3]


def test_oks_equal_to_the_threshold_does_not_suppress():
    assert oks_nms(np.zeros((2, 17, 2)), [0.5, 0.6], np.full(2, 900.0), SIGMAS, threshold=1.0).tolist() == [1, 0]


def test_no_poses_return_no_indices():
    kept = oks_nms(np.zeros((0, 17, 2)), [], [], SIGMAS)
    assert kept.shape == (0,)
    assert kept.dtype == np.intp
    assert oks_nms([], [], [], SIGMAS).shape == (0,)


@pytest.mark.parametrize("scores", [[0.5], [[0.5, 0.5]], [0.5, np.nan]])
def test_invalid_scores_raise(scores):
    with pytest.raises(ValueError, match="scores"):
        oks_nms(np.zeros((2, 17, 2)), scores, np.ones(2), SIGMAS)
