import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posedy.oks import rescore


def reference_rescore(box_scores, keypoint_scores, threshold):
    rescored = []
    for box_score, row in zip(box_scores, keypoint_scores, strict=True):
        used = [score for score in row if score > threshold]
        rescored.append(box_score * sum(used) / len(used) if used else 0.0)
    return rescored


@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_rescore_agrees_with_a_loop(seed, poses, threshold):
    rng = np.random.default_rng(seed)
    # Rounding to tenths makes scores equal to the threshold common.
    keypoint_scores = rng.uniform(-0.1, 1, (poses, 17)).round(1) * (rng.random((poses, 1)) < 0.8)
    box_scores = rng.random(poses)
    rescored = rescore(box_scores, keypoint_scores, threshold)
    assert rescored.shape == (poses,)
    np.testing.assert_allclose(rescored, reference_rescore(box_scores, keypoint_scores, threshold), rtol=1e-12)


def test_keypoints_up_to_the_threshold_are_ignored():
    np.testing.assert_allclose(rescore([0.5, 0.8, 1.0], [[0.2, 0.6], [0.1, 0.2], [0.4, 0.8]]), [0.3, 0, 0.6])


@pytest.mark.parametrize(("boxes", "keypoints"), [((2,), (3, 17)), ((2,), (2,)), ((2, 1), (2, 17))])
def test_inconsistent_shapes_raise(boxes, keypoints):
    with pytest.raises(ValueError, match="got shapes"):
        rescore(np.ones(boxes), np.ones(keypoints))
