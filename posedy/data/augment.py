"""Training augmentation: an albumentations `Compose` from an image and a person's region to a crop.

The geometric part (half body, scale, rotation, flip, crop) is one transform with one warp; photometric transforms of
albumentations can follow it. Sources: the paper, section 6, and Sun et al., CVPR 2019, for half body.
"""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.config import AugmentConfig
from posedy.geometry import FloatArray, apply_affine, image_to_crop_matrix, padded_region, warp_crop
from posedy.registration import nearest_name
from posedy.skeleton import Skeleton

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it looks for updates online when it is imported
import albumentations as A

_HALF_BODY_MIN_LABELED = 8
_HALF_BODY_MIN_PART = 2
_HALF_BODY_PADDING = 1.5


class RandomCropAffine:
    """Random affine map from image to crop: half body, scale, rotation and flip.

    Args:
        input_size: (W, H) of the crop.
        skeleton: the skeleton; its upper and lower body are the choices of half body.
        config: the parameters of the augmentation.
    """

    def __init__(self, input_size: tuple[int, int], skeleton: Skeleton, config: AugmentConfig) -> None:
        self.input_size = input_size
        self.skeleton = skeleton
        self.config = config

    def sample(
        self, rng: np.random.Generator, center: FloatArray, size: FloatArray, pose: FloatArray
    ) -> tuple[FloatArray, bool]:
        """Samples the (2, 3) matrix from image pixels to crop pixels, and whether it flips the crop.

        Args:
            rng: the random generator.
            center: (2,) center of the person's region in image pixels, from `padded_region`.
            size: (2,) width and height of the region.
            pose: (K, 3) x and y in image pixels and visibility.
        """
        config = self.config
        if rng.random() < config.half_body_probability:
            half = self._half_body_box(rng, pose)
            if half is not None:
                center, size = padded_region(half, self.input_size[0] / self.input_size[1], _HALF_BODY_PADDING)
        smallest, largest = config.scale_range
        scale = min(max(rng.normal(1, config.scale_std), smallest), largest)
        angle = min(max(rng.normal(0, config.rotation_std), -config.rotation_max), config.rotation_max)
        rotation = angle if rng.random() < config.rotation_probability else 0.0
        flip = rng.random() < config.flip_probability
        return image_to_crop_matrix(center, size * scale, self.input_size, rotation, flip), flip

    def _half_body_box(self, rng: np.random.Generator, pose: FloatArray) -> FloatArray | None:
        """Returns the box around the labeled keypoints of the upper or lower body; None if there are too few."""
        keypoints, labeled = pose[:, :2], pose[:, 2] > 0
        upper, lower = self.skeleton.upper_body, self.skeleton.lower_body
        if upper is None or lower is None or labeled.sum() <= _HALF_BODY_MIN_LABELED:
            return None
        parts = [keypoints[list(part)][labeled[list(part)]] for part in (upper, lower)]
        parts = [part for part in parts if len(part) > _HALF_BODY_MIN_PART]
        if not parts:
            return None
        part = parts[rng.integers(len(parts))]
        low, high = part.min(axis=0), part.max(axis=0)
        return np.concatenate([low, high]) if (high > low).any() else None


class PersonCrop(A.DualTransform):
    """Warps a person's crop out of an image and maps the keypoints to it.

    Its inputs are `image`, `keypoints` (K, 3) of x, y and visibility, and `image_to_crop` and `flip` from
    `RandomCropAffine.sample`. In a flipped crop, left and right keypoints are swapped.

    Args:
        input_size: (W, H) of the crop.
        flip_permutation: K indices, `Skeleton.flip_permutation`.
    """

    def __init__(self, input_size: tuple[int, int], flip_permutation: Sequence[int]) -> None:
        super().__init__(p=1.0)
        self.input_size = input_size
        self.flip_permutation = list(flip_permutation)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Returns the (2, 3) matrix from image to crop, and whether it flips the crop, from the inputs."""
        return {"image_to_crop": data["image_to_crop"], "flip": data["flip"]}

    def apply(self, img: NDArray[np.uint8], image_to_crop: FloatArray, **params: Any) -> NDArray[np.uint8]:
        """Warps the image."""
        return warp_crop(img, image_to_crop, self.input_size)

    def apply_to_keypoints(
        self, keypoints: FloatArray, image_to_crop: FloatArray, flip: bool, **params: Any
    ) -> FloatArray:
        """Maps the keypoints (K, 3), and swaps left and right if flipped."""
        keypoints = keypoints.copy()
        keypoints[:, :2] = apply_affine(image_to_crop, keypoints[:, :2])
        return keypoints[self.flip_permutation] if flip else keypoints


def training_transform(
    input_size: tuple[int, int], flip_permutation: Sequence[int], photometric: Sequence[Mapping[str, Any]]
) -> A.Compose:
    """Creates the training augmentation: one warp, then photometric transforms.

    Call it with `image`, `image_to_crop`, `flip` and `keypoints` (K, 3). It has its own random state: call
    `set_random_seed` before each sample to make it reproducible.

    Args:
        input_size: (W, H) of the crop.
        flip_permutation: K indices, `Skeleton.flip_permutation`.
        photometric: `AugmentConfig.photometric`.

    Raises:
        ValueError: if a photometric transform is unknown, moves pixels or has invalid arguments.
    """
    # Without keypoint_params, albumentations skips its conversion and checks of keypoints, which take a tenth of a
    # sample's time. PersonCrop, the only transform that moves pixels, reads the keypoints unconverted.
    transforms = [_create_photometric(record, input_size) for record in photometric]
    return A.Compose([PersonCrop(input_size, flip_permutation), *transforms])


def _create_photometric(record: Mapping[str, Any], input_size: tuple[int, int]) -> A.BasicTransform:
    arguments = dict(record)
    name = arguments.pop("transform", None)
    known = {key: value for key, value in vars(A).items() if inspect.isclass(value) and _is_photometric(value)}
    if name not in known:
        exists = isinstance(name, str) and hasattr(A, name)
        nearest = nearest_name(name, known)
        raise ValueError(
            "augment.photometric: expected entries {transform: NAME, and its arguments}, got "
            + (f"{name!r}, which moves pixels" if exists else f"{name!r}, which is not a transform of albumentations")
            + f"; the nearest valid name is {nearest!r}"
        )
    allowed = inspect.signature(known[name].__init__).parameters
    for argument in arguments:
        if argument not in allowed:
            nearest = nearest_name(argument, allowed)
            raise ValueError(
                f"augment.photometric: {name} has no argument {argument!r}; the nearest valid name is {nearest!r}"
            )
    try:
        transform = known[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"augment.photometric: invalid arguments {arguments} of {name}: {error}") from None
    _check_result(known[name](**{**arguments, "p": 1}), name, input_size)
    return transform


def _check_result(transform: A.BasicTransform, name: str, input_size: tuple[int, int]) -> None:
    """Checks that a transform returns a crop like the one it gets, since crops are normalized afterward."""
    crop = np.full((*input_size[::-1], 3), 128, np.uint8)
    try:
        result = transform(image=crop)["image"]
    except Exception as error:  # such as transforms that need other images, too
        raise ValueError(f"augment.photometric: {name} cannot be applied to a crop: {error}") from error
    if result.dtype != np.uint8 or result.shape != crop.shape:
        raise ValueError(
            f"augment.photometric: expected transforms that return uint8 images of the same shape, {name} returns "
            f"{result.dtype} of shape {result.shape}: posedy normalizes the crops itself"
        )


def _is_photometric(transform: type) -> bool:
    if transform in (A.CoarseDropout, A.GridDropout, A.PixelDropout):
        return True
    return issubclass(transform, A.ImageOnlyTransform) and transform is not A.ImageOnlyTransform
