"""Person boxes of image files, in the forms that COCO's tools and `posedy predict --boxes` take."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posedy.data.detections import ImageBoxes, read_named_images
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.box_files import name_of

if TYPE_CHECKING:  # heavy
    from posedy.inference.detectors import CleanedDetector, Detector


@dataclass(frozen=True)
class Photo:
    """A photo to look at.

    Attributes:
        path: the file.
        file_name: the name that its boxes know it by.
        image_id: the id that its boxes know it by.
        upright: whether its boxes count in upright pixels, else in stored ones, without its EXIF orientation.
        recorded: (width, height) of the pixels that boxes must count in, if that is known.
    """

    path: Path
    file_name: str
    image_id: int | str
    upright: bool
    recorded: tuple[int, int] | None = None


def photos_by_themselves(paths: Sequence[Path]) -> list[Photo]:
    """Photos of no annotation file: upright, as `posedy demo` reads them, with ids from 1.

    Raises:
        ValueError: if two have the same name, by which boxes name them.
    """
    [(name, count)] = Counter(path.name for path in paths).most_common(1)
    if count > 1:
        raise ValueError(
            f"{count} photos are named {name}: boxes name photos without their folders; detect them folder by folder, "
            "or give an annotation file"
        )
    return [Photo(path, path.name, number, upright=True) for number, path in enumerate(paths, start=1)]


def photos_of_annotations(paths: Sequence[Path], annotations: Path) -> tuple[list[Photo], int]:
    """Photos by the ends of their paths, with the names and ids of an annotation file, and its category of persons.

    They are read as COCO readers do, without their EXIF orientation, so that boxes fit the annotations.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it does not know a photo, or two photos are the same of its images.
    """
    images, category = read_named_images(annotations)
    photos: dict[str, Photo] = {}
    for path in paths:
        name = name_of(path, images.index_of_name)
        if name is None:
            raise ValueError(f"{annotations} has no image {path.name}: leave it out, or leave out --annotations")
        if name in photos:
            raise ValueError(
                f"{annotations}: {photos[name].path} and {path} are both its image {name}: give one folder of photos"
            )
        index = images.index_of_name[name]
        width, height = images.sizes[index].tolist()
        recorded = (width, height) if width > 0 else None
        photos[name] = Photo(path, name, images.ids[index], upright=False, recorded=recorded)
    return list(photos.values()), category


def detect_images(photos: Sequence[Photo], detector: "Detector", warn: Callable[[str], None]) -> list[ImageBoxes]:
    """The boxes of photos; one that cannot be read, or has another size than recorded, is left out.

    Args:
        photos: what to look at.
        detector: what finds persons; its boxes are cleaned as by `PoseEstimator`.
        warn: takes a line of text for each photo that is left out, with the reason.
    """
    from tqdm import tqdm

    from posedy.inference.detectors import CleanedDetector

    cleaned = CleanedDetector(detector)
    detected = []
    for photo in tqdm(photos, desc="detect", unit="photo", disable=None):
        try:
            detected.append(_detect(photo, cleaned))
        except (OSError, ValueError) as error:
            warn(f"{photo.path}: NOT DONE: {error}")
    return detected


def _detect(photo: Photo, detector: "CleanedDetector") -> "ImageBoxes":
    image = rgb_to_bgr(read_image(photo.path, apply_exif=photo.upright))
    height, width = image.shape[:2]
    if photo.recorded not in (None, (width, height)):
        raise ValueError(
            f"the annotation file records {photo.recorded[0]} x {photo.recorded[1]} pixels, as stored the photo has "
            f"{width} x {height}: boxes would not fit the annotations; give the photo that they belong to"
        )
    boxes, scores = detector.detect(image)
    return ImageBoxes(photo.file_name, photo.image_id, (width, height), boxes, scores)
