import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from posedy.oks import oks_matrix
from posedy.skeleton import COCO17

SIGMAS = np.array(COCO17.sigmas)


def poses(max_poses: int = 6) -> st.SearchStrategy:
    coordinates = st.floats(-500, 500, width=32)
    return st.integers(0, max_poses).flatmap(
        lambda count: st.tuples(
            arrays(np.float64, (count, 17, 2), elements=coordinates),
            arrays(np.float64, count, elements=st.floats(100, 1e5, width=32)),
        )
    )


def reference_oks(keypoints: np.ndarray, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    count = len(keypoints)
    matrix = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            terms = []
            for k, sigma in enumerate(sigmas):
                squared = sum((keypoints[i, k] - keypoints[j, k]) ** 2)
                terms.append(np.exp(-squared / (2 * (2 * sigma) ** 2 * (areas[i] + areas[j]) / 2)))
            matrix[i, j] = np.mean(terms)
    return matrix


@settings(max_examples=40)  # the loop is slow
@given(poses(4))
def test_oks_agrees_with_a_loop(case):
    keypoints, areas = case
    np.testing.assert_allclose(oks_matrix(keypoints, areas, SIGMAS), reference_oks(keypoints, areas, SIGMAS), atol=1e-9)


@given(poses())
def test_oks_is_symmetric_with_ones_on_the_diagonal(case):
    matrix = oks_matrix(*case, SIGMAS)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    assert ((matrix >= 0) & (matrix <= 1)).all()


@given(poses(), st.floats(-300, 300), st.floats(0.5, 20))
def test_oks_is_invariant_to_translation_and_scale(case, shift, scale):
    keypoints, areas = case
    # Multiples of 1/8 pixel are shifted exactly; the steep exponential would amplify rounding errors.
    keypoints, shift = np.round(keypoints * 8) / 8, np.round(shift * 8) / 8
    expected = oks_matrix(keypoints, areas, SIGMAS)
    np.testing.assert_allclose(oks_matrix(keypoints + shift, areas, SIGMAS), expected, atol=1e-9)
    np.testing.assert_allclose(oks_matrix(keypoints * scale, areas * scale**2, SIGMAS), expected, atol=1e-9)


@given(st.integers(0, 16), st.floats(1, 20), st.floats(0.5, 10))
def test_oks_decreases_with_distance(keypoint, near, further):
    keypoints = np.zeros((3, 17, 2))
    keypoints[1, keypoint, 0] = near
    keypoints[2, keypoint, 0] = near + further
    oks = oks_matrix(keypoints, np.full(3, 5000.0), SIGMAS)[0]
    assert 1 > oks[1] > oks[2] >= 16 / 17 - 1e-12


def test_oks_at_one_sigma_equals_the_equation():
    # d = 2 sigma sqrt(area) gives the exponent -1/2.
    keypoints = np.zeros((2, 17, 2))
    keypoints[1, :, 1] = 2 * SIGMAS * np.sqrt(2500)
    assert oks_matrix(keypoints, [2500, 2500], SIGMAS)[0, 1] == pytest.approx(np.exp(-0.5))


def test_poses_without_area_match_only_equal_poses():
    keypoints = np.stack([np.zeros((17, 2)), np.zeros((17, 2)), np.ones((17, 2))])
    np.testing.assert_array_equal(oks_matrix(keypoints, np.zeros(3), SIGMAS), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("keypoints", "areas", "sigmas", "message"),
    [
        (np.zeros((2, 17)), np.ones(2), SIGMAS, r"\(P, K, 2\), got \(2, 17\)"),
        (np.zeros((2, 17, 2)), np.ones(3), SIGMAS, r"areas of shape \(2,\).*got \(3,\)"),
        (np.zeros((2, 16, 2)), np.ones(2), SIGMAS, r"sigmas of shape \(16,\).*\(17,\)"),
        (np.full((2, 17, 2), np.nan), np.ones(2), SIGMAS, "finite"),
        (np.zeros((2, 17, 2)), -np.ones(2), SIGMAS, "non-negative"),
        (np.zeros((2, 17, 2)), np.ones(2), np.zeros(17), "positive"),
    ],
)
def test_invalid_arguments_raise(keypoints, areas, sigmas, message):
    with pytest.raises(ValueError, match=message):
        oks_matrix(keypoints, areas, sigmas)
