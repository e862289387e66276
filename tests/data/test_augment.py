"""Augmentation: one warp of image and keypoints; a flip swaps left and right."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from posedy.codecs import MSRACodec
from posedy.config import AugmentConfig
from posedy.data.augment import RandomCropAffine, training_transform
from posedy.geometry import apply_affine, image_to_crop_matrix, padded_region
from posedy.skeleton import COCO17, Skeleton

SIZE = (192, 256)
IDENTITY = AugmentConfig(flip_probability=0, scale_std=0, rotation_probability=0, half_body_probability=0)
BOX = np.array([100.0, 60.0, 220.0, 300.0], dtype=np.float32)


def person(seed: int = 0, visible: float = 1.0) -> dict[str, NDArray]:
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(BOX[:2] + 5, BOX[2:] - 5, size=(17, 2)).astype(np.float32)
    return {
        "image": rng.integers(0, 255, (400, 320, 3), dtype=np.uint8),
        "box": BOX,
        "keypoints": keypoints,
        "visibility": (rng.random(17) < visible).astype(np.float32) * 2,
    }


def augment(
    sample: dict[str, NDArray], config: AugmentConfig = IDENTITY, seed: int = 0, skeleton: Skeleton = COCO17
) -> dict[str, NDArray]:
    """Augments a sample as in training: `image`, `keypoints` (K, 2) and `visibility` (K,) of the crop."""
    pose = np.column_stack([sample["keypoints"], sample["visibility"]])
    center, size = padded_region(sample["box"], SIZE[0] / SIZE[1], 1.25)
    matrix, flip = RandomCropAffine(SIZE, skeleton, config).sample(np.random.default_rng(seed), center, size, pose)
    transform = training_transform(SIZE, skeleton.flip_permutation, config.photometric)
    transform.set_random_seed(seed)
    out = transform(image=sample["image"], image_to_crop=matrix, flip=flip, keypoints=pose)
    return {"image": out["image"], "keypoints": out["keypoints"][:, :2], "visibility": out["keypoints"][:, 2]}


def squares_at(keypoints: NDArray) -> NDArray[np.uint8]:
    """A black image with a 7x7 square per keypoint, whose brightness identifies the keypoint."""
    image = np.zeros((400, 320, 3), dtype=np.uint8)
    for index, (x, y) in enumerate(keypoints.round().astype(int)):
        image[y - 3 : y + 4, x - 3 : x + 4] = 40 + 12 * index
    return image


def test_identity_augmentation_is_the_crop_of_the_padded_box() -> None:
    sample = person()
    out = augment(sample)
    matrix = image_to_crop_matrix(*padded_region(BOX, 0.75, 1.25), SIZE)
    assert out["image"].shape == (256, 192, 3)
    assert np.abs(out["keypoints"] - apply_affine(matrix, sample["keypoints"])).max() < 1e-3
    assert (np.asarray(out["visibility"]) == sample["visibility"]).all()


def test_flip_swaps_left_and_right_keypoints() -> None:
    sample = person()
    plain = augment(sample)
    flipped = augment(sample, IDENTITY.model_copy(update={"flip_probability": 1.0}))
    assert (flipped["image"] == plain["image"][:, ::-1]).mean() > 0.99
    left, right = COCO17.keypoints.index("left_wrist"), COCO17.keypoints.index("right_wrist")
    x, y = plain["keypoints"][right]
    assert flipped["keypoints"][left] == pytest.approx([SIZE[0] - 1 - x, y], abs=1e-3)
    # targets may differ by one heatmap pixel, from rounding and from the codec's shift of 0.75 heatmap pixels
    codec = MSRACodec(SIZE)
    labeled = torch.ones(1, 17)
    before, _ = codec.encode(torch.tensor(plain["keypoints"], dtype=torch.float32)[None], labeled)
    after, _ = codec.encode(torch.tensor(flipped["keypoints"], dtype=torch.float32)[None], labeled)
    for one, other in enumerate(COCO17.flip_permutation):
        expected = before[0, other].flip(-1)
        (row, column), (row_after, column_after) = (divmod(int(m.argmax()), 48) for m in (expected, after[0, one]))
        assert row == row_after
        assert column_after - column in (0, 1)
        if before[0, one].flip(-1).argmax() != expected.argmax():
            assert not torch.equal(after[0, one], before[0, one].flip(-1))


def test_flip_swaps_visibility_with_keypoints() -> None:
    sample = person(visible=0.5)
    flipped = augment(sample, IDENTITY.model_copy(update={"flip_probability": 1.0}))
    assert (np.asarray(flipped["visibility"]) == sample["visibility"][list(COCO17.flip_permutation)]).all()


@pytest.mark.parametrize("seed", range(12))
def test_keypoints_follow_their_pixels(seed: int) -> None:
    sample = person(seed)
    sample["keypoints"] = np.stack(
        [np.linspace(115, 205, 17), 80 + (np.arange(17) * 5 % 17) * 13], axis=1, dtype=np.float32
    ).round()
    sample["image"] = squares_at(sample["keypoints"])
    out = augment(sample, AugmentConfig(), seed)
    checked = 0
    for index, (x, y) in enumerate(np.asarray(out["keypoints"])):
        if 3 <= x < SIZE[0] - 4 and 3 <= y < SIZE[1] - 4:
            # a flip swaps names, so the brightness is that of either keypoint of a pair
            level = int(out["image"][round(float(y)), round(float(x)), 0])
            pair = (index, COCO17.flip_permutation[index])
            assert min(abs(level - (40 + 12 * i)) for i in pair) <= 6
            checked += 1
    assert checked >= 3


def test_rotation_and_scale_stay_within_limits() -> None:
    config = AugmentConfig(half_body_probability=0, flip_probability=0)
    sample = person()
    angles, scales = [], []
    for seed in range(300):
        a, b = augment(sample, config, seed)["keypoints"][[0, 1]]
        before = sample["keypoints"][1] - sample["keypoints"][0]
        after = b - a
        scales.append(np.linalg.norm(before) / np.linalg.norm(after))
        angle = np.arctan2(after[1], after[0]) - np.arctan2(before[1], before[0])
        angles.append(np.rad2deg((angle + np.pi) % (2 * np.pi) - np.pi))
    base = padded_region(BOX, 0.75, 1.25)[1][0] / SIZE[0]
    assert max(np.abs(angles)) <= 45.01
    assert np.mean(np.abs(angles) < 1e-3) == pytest.approx(0.4, abs=0.1)
    assert np.mean(np.abs(angles) > 44.99) > 0.1
    assert min(scales) / base == pytest.approx(0.65, abs=0.01)
    assert max(scales) / base == pytest.approx(1.35, abs=0.01)


def test_half_body_shows_the_upper_or_the_lower_body() -> None:
    sample = person()
    sample["keypoints"][:11, 1] = np.linspace(70, 150, 11)
    sample["keypoints"][11:, 1] = np.linspace(200, 290, 6)
    config = IDENTITY.model_copy(update={"half_body_probability": 1.0})
    shows_upper = set()
    for seed in range(20):
        y = augment(sample, config, seed)["keypoints"][:, 1]
        inside = (y >= 0) & (y < SIZE[1])
        assert inside[:11].all() or inside[11:].all()
        shows_upper.add(bool(inside[:11].all()))
    assert shows_upper == {True, False}


def test_half_body_needs_enough_keypoints_and_a_known_upper_body() -> None:
    config = IDENTITY.model_copy(update={"half_body_probability": 1.0})
    few = person()
    few["visibility"] = np.array([2.0] * 8 + [0.0] * 9, dtype=np.float32)
    plain = augment(few)["keypoints"]
    assert np.allclose(augment(few, config)["keypoints"], plain)
    unknown = Skeleton(COCO17.keypoints, COCO17.flip_pairs, COCO17.limbs, COCO17.sigmas)
    whole = person()
    plain = augment(whole)["keypoints"]
    assert np.allclose(augment(whole, config, skeleton=unknown)["keypoints"], plain)


def test_image_is_unchanged_and_a_seed_reproduces_the_sample() -> None:
    sample = person()
    before = sample["image"].copy()
    config = AugmentConfig(photometric=[{"transform": "ColorJitter"}])
    outs = [augment(sample, config, seed) for seed in (5, 5, 6)]
    assert (sample["image"] == before).all()
    assert (outs[0]["image"] == outs[1]["image"]).all()
    assert np.allclose(outs[0]["keypoints"], outs[1]["keypoints"])
    assert not np.allclose(outs[0]["keypoints"], outs[2]["keypoints"])


def test_photometric_transforms_change_pixels_only() -> None:
    sample = person()
    config = IDENTITY.model_copy(update={"photometric": [{"transform": "InvertImg", "p": 1.0}]})
    plain = augment(sample)
    out = augment(sample, config)
    assert (out["image"] == 255 - plain["image"]).all()
    assert np.allclose(out["keypoints"], plain["keypoints"])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"transform": "ColorJiter"}, "'ColorJiter'.*'ColorJitter'"),
        ({"transform": "HorizontalFlip"}, "'HorizontalFlip', which moves pixels"),
        ({"transform": "ColorJitter", "brightnes": 0.1}, "'brightnes'.*'brightness'"),
        ({"transform": "ColorJitter", "brightness": "much"}, "brightness.*ColorJitter"),
        ({"p": 0.5}, "None"),
        ({"transform": "Normalize"}, "Normalize returns float32.*posedy normalizes"),
        ({"transform": "HistogramMatching", "p": 0.0}, "HistogramMatching cannot be applied"),
    ],
)
def test_invalid_photometric_transform_raises(record: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_transform(SIZE, COCO17.flip_permutation, [record])


def test_keypoints_outside_the_image_are_kept() -> None:
    sample = person()
    sample["keypoints"][0] = [-500, 2000]
    out = augment(sample)
    assert len(out["keypoints"]) == 17
