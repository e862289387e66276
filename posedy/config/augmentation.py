"""The configuration keys of the training augmentation and of the consistency loss between two augmentations."""

from typing import Any

from pydantic import Field, model_validator

from posedy.config.section import Section


class AugmentConfig(Section):
    """The training augmentation (paper, section 6, and Sun et al., CVPR 2019)."""

    flip_probability: float = Field(0.5, ge=0, le=1)
    """Probability of a flip."""
    scale_std: float = Field(0.35, ge=0)
    """Standard deviation of the region's scale, N(1, scale_std), clipped to scale_range."""
    scale_range: tuple[float, float] = (0.65, 1.35)
    """The smallest and the largest scale."""
    rotation_std: float = Field(45, ge=0)
    """Standard deviation of the rotation in degrees, N(0, rotation_std), clipped to +-rotation_max."""
    rotation_max: float = Field(45, ge=0, le=180)
    """The largest rotation in degrees, in both directions."""
    rotation_probability: float = Field(0.6, ge=0, le=1)
    """Probability of a rotation."""
    half_body_probability: float = Field(0.3, ge=0, le=1)
    """Probability of showing only the upper or lower body of persons with enough labeled keypoints."""
    photometric: list[dict[str, Any]] = Field([])
    """Photometric transforms of albumentations for the crop: {transform: NAME, and its arguments}."""

    @model_validator(mode="after")
    def _check_scale_range(self) -> "AugmentConfig":
        low, high = self.scale_range
        if not 0 < low <= high:
            raise ValueError(f"scale_range: expected (smallest, largest), both positive, got {self.scale_range}")
        return self


class EasyAugmentConfig(AugmentConfig):
    """The easy augmentation of unlabeled persons, for the teacher; half body has no effect without keypoints."""

    scale_std: float = Field(0.1, ge=0)
    scale_range: tuple[float, float] = (0.8, 1.2)
    rotation_std: float = Field(15, ge=0)
    rotation_max: float = Field(30, ge=0, le=180)


class HardAugmentConfig(AugmentConfig):
    """The hard augmentation of unlabeled persons, for the student; cutout is added to it."""

    scale_std: float = Field(0.25, ge=0)
    rotation_max: float = Field(60, ge=0, le=180)
    rotation_probability: float = Field(0.8, ge=0, le=1)


class ConsistencyConfig(Section):
    """The consistency loss for `data.unlabeled` (PoseCons of Xie et al., ICCV 2021).

    The heatmaps predicted from an easy crop of a person are mapped to a hard crop of the same person and are its
    targets.
    """

    weight: float = Field(1.0, gt=0)
    """Factor on the consistency loss, which is added to the loss of the labeled persons."""
    ramp_up_epochs: int = Field(5, ge=0)
    """Number of epochs in which the factor grows linearly to `weight`."""
    batch_size: int | None = Field(None, ge=1)
    """Unlabeled samples per optimizer step over all devices; None is `train.batch_size`."""
    min_score: float = Field(0.2, ge=0)
    """Minimum score of keypoints predicted from the easy crop; others have no loss."""
    cutout_keypoints: int = Field(5, ge=0)
    """Number of predicted keypoints that are covered by gray squares in the hard crop."""
    cutout_size: float = Field(0.15, gt=0, le=1)
    """Side of these squares as a fraction of the crop's width."""
    easy: EasyAugmentConfig = EasyAugmentConfig()
    hard: HardAugmentConfig = HardAugmentConfig()
    """It must be harder than `easy`: with equal augmentations, all heatmaps can become flat (collapse)."""
