import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posedy.oks import rescore


def rescore_by_loops(box_scores, keypoint_scores, threshold):
    rescored = []
    for box_score, row in zip(box_scores, keypoint_scores, strict=True):
        over = [score for score in row if score > threshold]
        rescored.append(box_score * sum(over) / len(over) if over else 0.0)
    return rescored


@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_equals_plain_loops(seed, poses, threshold):
    rng = np.random.default_rng(seed)
    # Tenths make scores that equal the threshold common.
    keypoint_scores = rng.uniform(-0.1, 1, (poses, 17)).round(1) * (rng.random((poses, 1)) < 0.8)
    box_scores = rng.random(poses)
    rescored = rescore(box_scores, keypoint_scores, threshold)
    assert rescored.shape == (poses,)
    np.testing.assert_allclose(rescored, rescore_by_loops(box_scores, keypoint_scores, threshold), rtol=1e-12)


def test_keypoints_up_to_the_threshold_do_not_count():
    np.testing.assert_allclose(rescore([0.5, 0.8, 1.0], [[0.2, 0.6], [0.1, 0.2], [0.4, 0.8]]), [0.3, 0, 0.6])


@pytest.mark.parametrize(("boxes", "keypoints"), [((2,), (3, 17)), ((2,), (2,)), ((2, 1), (2, 17))])
def test_shapes_that_do_not_fit_are_named(boxes, keypoints):
    with pytest.raises(ValueError, match="must fit together"):
        rescore(np.ones(boxes), np.ones(keypoints))
