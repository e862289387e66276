import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from posedy.geometry import (
    apply_affine,
    box_iou,
    image_to_crop_matrix,
    invert_affine,
    padded_region,
    warp_crop,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

INPUT_SIZES = st.sampled_from([(192, 256), (288, 384), (64, 64), (256, 192), (32, 96)])


@st.composite
def boxes(draw: st.DrawFn, largest: float = 5000) -> np.ndarray:
    corner = draw(st.tuples(st.floats(-1000, 6000), st.floats(-1000, 6000)))
    size = draw(st.tuples(st.floats(1, largest), st.floats(1, largest)))
    return np.array([*corner, corner[0] + size[0], corner[1] + size[1]])


def matrix_of(box: np.ndarray, input_size: tuple[int, int], **transform: float) -> np.ndarray:
    return image_to_crop_matrix(*padded_region(box, input_size[0] / input_size[1]), input_size, **transform)


@given(boxes(), INPUT_SIZES, st.floats(-180, 180), st.booleans(), st.floats(0.5, 2), st.data())
def test_inverse_matrix_maps_back(box, input_size, rotation, flip, scale, data):
    center, size = padded_region(box, input_size[0] / input_size[1])
    matrix = image_to_crop_matrix(center, size * scale, input_size, rotation, flip)
    points = data.draw(arrays(np.float64, (5, 2), elements=st.floats(-2000, 8000)))
    np.testing.assert_allclose(apply_affine(invert_affine(matrix), apply_affine(matrix, points)), points, atol=1e-3)
    crop_points = data.draw(arrays(np.float64, (5, 2), elements=st.floats(-100, 400)))
    back = apply_affine(matrix, apply_affine(invert_affine(matrix), crop_points))
    np.testing.assert_allclose(back, crop_points, atol=1e-3)


@given(boxes(), INPUT_SIZES, st.floats(-180, 180))
def test_box_center_is_at_the_crop_center(box, input_size, rotation):
    matrix = matrix_of(box, input_size, rotation=rotation)
    center = (box[:2] + box[2:]) / 2
    np.testing.assert_allclose(apply_affine(matrix, center[None])[0], np.array(input_size) / 2, atol=1e-6)


@given(boxes(), INPUT_SIZES, st.floats(-180, 180), st.data())
def test_flip_reverses_x(box, input_size, rotation, data):
    points = data.draw(arrays(np.float64, (4, 2), elements=st.floats(-1000, 6000)))
    plain = apply_affine(matrix_of(box, input_size, rotation=rotation), points)
    flipped = apply_affine(matrix_of(box, input_size, rotation=rotation, flip=True), points)
    np.testing.assert_allclose(flipped[:, 0], input_size[0] - 1 - plain[:, 0], atol=1e-4)
    np.testing.assert_allclose(flipped[:, 1], plain[:, 1], atol=1e-4)


@given(boxes(), INPUT_SIZES, st.floats(-180, 180), st.booleans())
def test_matrix_is_a_similarity(box, input_size, rotation, flip):
    """The scale is the ratio of crop width to region width in every direction."""
    region = padded_region(box, input_size[0] / input_size[1])[1]
    linear = matrix_of(box, input_size, rotation=rotation, flip=flip)[:, :2]
    scale = input_size[0] / region[0]
    np.testing.assert_allclose(linear @ linear.T, scale**2 * np.eye(2), atol=1e-9 * scale**2)
    np.testing.assert_allclose(np.linalg.det(linear), -(scale**2) if flip else scale**2, rtol=1e-9)


def test_positive_rotation_is_clockwise():
    matrix = image_to_crop_matrix([0, 0], [192, 256], (192, 256), rotation=90)
    right_of_center = apply_affine(matrix, [[10.0, 0.0]])[0]
    np.testing.assert_allclose(right_of_center, [96, 128 + 10], atol=1e-9)


def test_batch_of_regions_equals_single_regions():
    batch = np.array([[0, 0, 10, 40], [5, 5, 100, 50], [-20, 0, 7, 9]], dtype=np.float32)
    centers, sizes = padded_region(batch, 0.75)
    matrices = image_to_crop_matrix(centers, sizes, (192, 256), 30, True)
    points = np.arange(12.0).reshape(3, 2, 2)
    for index, box in enumerate(batch):
        single = matrix_of(box, (192, 256), rotation=30, flip=True)
        np.testing.assert_allclose(matrices[index], single)
        np.testing.assert_allclose(apply_affine(matrices, points)[index], apply_affine(single, points[index]))
        np.testing.assert_allclose(invert_affine(matrices)[index], invert_affine(single))


@pytest.mark.parametrize(
    ("center", "size"),
    [
        ([0, 0], [0, 0]),
        ([0, 0], [10, -1]),
        ([np.nan, 0], [3, 4]),
        ([0, 0], [np.inf, 4]),
        ([[0, 0]] * 2, [[3, 4], [0, 0]]),
    ],
)
def test_region_without_area_raises(center, size):
    with pytest.raises(ValueError, match="size"):
        image_to_crop_matrix(center, size, (192, 256))


@given(boxes(), st.floats(0.2, 5), st.floats(1, 2))
def test_padded_region_is_minimal_and_has_the_aspect(box, aspect, padding):
    center, size = padded_region(box, aspect, padding)
    np.testing.assert_allclose(size[0] / size[1], aspect, rtol=1e-9)
    np.testing.assert_allclose(center, (box[:2] + box[2:]) / 2)
    assert (center - size / 2 <= box[:2] + 1e-6).all()
    assert (center + size / 2 >= box[2:] - 1e-6).all()
    np.testing.assert_allclose((size / (box[2:] - box[:2])).min(), padding, rtol=1e-6)


def test_default_padding_is_a_quarter():
    np.testing.assert_allclose(padded_region([10, 20, 40, 60], 0.75)[1], [37.5, 50])


@given(arrays(np.float64, (3, 4), elements=st.floats(-1e4, 1e4)))
def test_box_conversions_are_inverse(rows):
    np.testing.assert_allclose(xyxy_to_xywh(xywh_to_xyxy(rows)), rows, atol=1e-9)
    np.testing.assert_allclose(xywh_to_xyxy(xyxy_to_xywh(rows)), rows, atol=1e-9)
    x, y, width, height = rows[0]
    np.testing.assert_array_equal(xywh_to_xyxy(rows[0]), [x, y, x + width, y + height])


def test_box_functions_accept_no_boxes():
    assert xywh_to_xyxy(np.zeros((0, 4))).shape == (0, 4)
    assert box_iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


def reference_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = width * height if width > 0 and height > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0.0


@given(st.data())
def test_box_iou_agrees_with_a_loop(data):
    def draw_boxes() -> np.ndarray:
        rows = data.draw(arrays(np.float64, st.tuples(st.integers(0, 5), st.just(4)), elements=st.integers(0, 12)))
        return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)  # some touch or are empty

    first, second = draw_boxes(), draw_boxes()
    expected = np.array([[reference_iou(a, b) for b in second] for a in first]).reshape(len(first), len(second))
    np.testing.assert_allclose(box_iou(first, second), expected, atol=1e-12)


@given(
    st.tuples(st.floats(20, 100), st.floats(20, 100)),
    st.tuples(st.floats(60, 140), st.floats(60, 140)),
    st.floats(-45, 45),
    st.booleans(),
    st.tuples(st.floats(0.35, 0.65), st.floats(0.35, 0.65)),
)
def test_warp_moves_a_blob_as_the_matrix_moves_its_center(corner, size, rotation, flip, position):
    box = np.array([*corner, corner[0] + size[0], corner[1] + size[1]])
    input_size = (192, 256)
    matrix = matrix_of(box, input_size, rotation=rotation, flip=flip)
    center = box[:2] + (box[2:] - box[:2]) * position
    rows, columns = np.mgrid[:260, :280]
    blob = 250 * np.exp(-((columns - center[0]) ** 2 + (rows - center[1]) ** 2) / (2 * 3.0**2))
    image = np.repeat(np.round(blob).astype(np.uint8)[..., None], 3, axis=2)
    crop = warp_crop(image, matrix, input_size)
    assert crop.shape == (256, 192, 3)
    assert crop.dtype == np.uint8
    weight = crop[..., 0].astype(float)
    rows, columns = np.mgrid[:256, :192]
    centroid = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    # Another pixel convention would give half a pixel; the remaining error comes from rounding of brightness.
    np.testing.assert_allclose(centroid, apply_affine(matrix, center[None])[0], atol=0.15)


def test_pixels_outside_the_image_are_black():
    image = np.full((50, 40, 3), 255, dtype=np.uint8)
    crop = warp_crop(image, matrix_of(np.array([0, 0, 40, 50]), (96, 128)), (96, 128))
    assert (crop[64, 48] == 255).all()
    assert (crop[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()


def test_gray_image_gives_gray_crop():
    assert warp_crop(np.zeros((50, 40), dtype=np.uint8), np.eye(2, 3), (96, 128)).shape == (128, 96)


@pytest.mark.parametrize("shape", [(0, 10, 3), (10, 0, 3), (1, 32767, 3), (40000, 1, 3)])
def test_empty_or_too_large_image_raises(shape):
    with pytest.raises(ValueError, match=f"got {shape[1]} x {shape[0]} "):
        warp_crop(np.zeros(shape, dtype=np.uint8), np.eye(2, 3), (96, 128))


def test_largest_image_is_accepted():
    assert warp_crop(np.zeros((2, 32766, 3), dtype=np.uint8), np.eye(2, 3), (96, 128)).shape == (128, 96, 3)
