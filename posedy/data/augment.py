"""Augmentation: one albumentations `Compose` from a photo with a person's box to a crop.

The geometric part (half body, scale, rotation, flip, crop) is one transform and one warp; photometric transforms of
albumentations can follow it. Sources: the paper, section 6, and Sun et al., CVPR 2019, for half body.
"""

import difflib
import inspect
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.config import AugmentConfig
from posedy.geometry import FloatArray, apply_affine, image_to_crop_matrix, padded_region, warp_crop
from posedy.skeleton import Skeleton

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for news when it is imported
import albumentations as A

_HALF_BODY_MIN_LABELLED = 8
_HALF_BODY_MIN_PART = 2
_HALF_BODY_PADDING = 1.5


class PersonCrop(A.DualTransform):
    """Cuts a person's crop out of a photo, varied at random, in one warp; keypoints follow.

    Reads `box` (xyxy) beside `image` and `keypoints` with their visibility. A flipped crop has x' = W - 1 - x, and left
    and right keypoints change places.

    Args:
        input_size: (W, H) of the crop.
        skeleton: whose pairs are exchanged by a flip and whose upper body half body shows.
        config: how much the crop varies.
        padding: of the box.
    """

    def __init__(self, input_size: tuple[int, int], skeleton: Skeleton, config: AugmentConfig, padding: float) -> None:
        super().__init__(p=1.0)
        self.input_size = input_size
        self.skeleton = skeleton
        self.config = config
        self.padding = padding

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draws the crop's matrix."""
        config, random = self.config, self.random_generator
        aspect = self.input_size[0] / self.input_size[1]
        center, size = padded_region(data["box"], aspect, self.padding)
        if random.random() < config.half_body_probability:
            # Compose carries the visibility as the last column of the keypoints.
            half = self._half_body_box(data["keypoints"][:, :2], data["keypoints"][:, -1] > 0)
            if half is not None:
                center, size = padded_region(half, aspect, _HALF_BODY_PADDING)
        scale = np.clip(random.normal(1, config.scale_std), *config.scale_range)
        turn = np.clip(random.normal(0, config.rotation_std), -config.rotation_max, config.rotation_max)
        rotation = float(turn) if random.random() < config.rotation_probability else 0.0
        flip = bool(random.random() < config.flip)
        matrix = image_to_crop_matrix(center, size * scale, self.input_size, rotation, flip)
        return {"image_to_crop": matrix, "flip": flip}

    def apply(self, img: NDArray[np.uint8], image_to_crop: FloatArray, **params: Any) -> NDArray[np.uint8]:
        """Warps the photo."""
        return warp_crop(img, image_to_crop, self.input_size)

    def apply_to_keypoints(
        self, keypoints: FloatArray, image_to_crop: FloatArray, flip: bool, **params: Any
    ) -> FloatArray:
        """Maps the keypoints (K, 2 and more columns) and exchanges left and right if flipped."""
        keypoints = keypoints.copy()
        keypoints[:, :2] = apply_affine(image_to_crop, keypoints[:, :2])
        return keypoints[list(self.skeleton.flip_permutation)] if flip else keypoints

    def _half_body_box(self, keypoints: FloatArray, labelled: NDArray[np.bool_]) -> FloatArray | None:
        """The box around the labelled keypoints of the upper or the lower body; None when there are too few."""
        upper, lower = self.skeleton.upper_body, self.skeleton.lower_body
        if upper is None or lower is None or labelled.sum() <= _HALF_BODY_MIN_LABELLED:
            return None
        parts = [keypoints[list(part)][labelled[list(part)]] for part in (upper, lower)]
        parts = [part for part in parts if len(part) > _HALF_BODY_MIN_PART]
        if not parts:
            return None
        part = parts[self.random_generator.integers(len(parts))]
        low, high = part.min(axis=0), part.max(axis=0)
        return np.concatenate([low, high]) if (high > low).any() else None


def training_transform(
    input_size: tuple[int, int], skeleton: Skeleton, config: AugmentConfig, padding: float
) -> A.Compose:
    """The augmentation of training: call it with `image`, `box`, `keypoints` (K, 2) and `visibility` (K,).

    Its random state is its own: `set_random_seed` before each sample makes a sample repeatable.

    Raises:
        ValueError: if a photometric transform is unknown, moves pixels or does not take its arguments.
    """
    transforms = [PersonCrop(input_size, skeleton, config, padding), *map(_photometric, config.photometric)]
    return A.Compose(
        transforms,
        keypoint_params=A.KeypointParams(format="xy", label_fields=["visibility"], remove_invisible=False),
    )


def _photometric(record: Mapping[str, Any]) -> A.BasicTransform:
    arguments = dict(record)
    name = arguments.pop("transform", None)
    known = {key: value for key, value in vars(A).items() if inspect.isclass(value) and _keeps_pixels_in_place(value)}
    if name not in known:
        exists = isinstance(name, str) and hasattr(A, name)
        nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0)[0]
        raise ValueError(
            f"augment.photometric: {name!r} "
            + ("moves pixels, which the crop's one warp is for" if exists else "is not a transform of albumentations")
            + f"; each entry is {{transform: NAME, and its arguments}}, the nearest name is {nearest!r}"
        )
    allowed = inspect.signature(known[name].__init__).parameters
    for argument in arguments:
        if argument not in allowed:
            nearest = difflib.get_close_matches(argument, allowed, n=1, cutoff=0)[0]
            raise ValueError(f"augment.photometric: {name} takes no {argument!r}; the nearest is {nearest!r}")
    try:
        return known[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"augment.photometric: {name} does not take {arguments}: {error}") from None


def _keeps_pixels_in_place(transform: type) -> bool:
    if transform in (A.CoarseDropout, A.GridDropout, A.PixelDropout):
        return True
    return issubclass(transform, A.ImageOnlyTransform) and transform is not A.ImageOnlyTransform
