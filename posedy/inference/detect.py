"""Person detection in image files, for box files that COCO's tools and `posedy predict --boxes` read."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from posedy.data.detections import ImageBoxes, read_image_table
from posedy.data.orientation import ImageHeader, read_header
from posedy.evaluation.processes import gather_items, is_main, own_share
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.box_files import match_file_name
from posedy.inference.detectors import CleanedDetector, Detector, create_detector, detector_thresholds
from posedy.inference.image_groups import detect_group, read_groups

_SHARE = 64  # consecutive images of one process, of which some are detected together


@dataclass(frozen=True)
class ImageEntry:
    """An image file and its identity in the box file.

    Attributes:
        path: the image file.
        file_name: the image's name in the box file.
        image_id: the image's id in the box file.
        apply_exif: whether boxes are in upright pixels; otherwise they are in stored pixels, without the EXIF
            orientation.
        recorded_size: (width, height) that the annotation file records, or None.
    """

    path: Path
    file_name: str
    image_id: int | str
    apply_exif: bool
    recorded_size: tuple[int, int] | None = None


def entries_from_paths(paths: Sequence[Path]) -> list[ImageEntry]:
    """Creates entries of images without an annotation file: upright, as `posedy predict` reads them, with ids from 1.

    Raises:
        ValueError: if two images have the same file name, which is their identity in the box file.
    """
    [(name, count)] = Counter(path.name for path in paths).most_common(1)
    if count > 1:
        raise ValueError(
            f"{count} images are named {name}, and box files have names without folders: detect them folder by folder, "
            "or give an annotation file"
        )
    return [ImageEntry(path, path.name, number, apply_exif=True) for number, path in enumerate(paths, start=1)]


def entries_from_annotations(paths: Sequence[Path], annotations: Path) -> tuple[list[ImageEntry], int]:
    """Creates the entries of images from an annotation file; returns them with the id of its person category.

    An image path must end in the annotation file's name for it. Boxes are converted to the pixels as stored, without
    the EXIF orientation, as COCO's annotations.

    Raises:
        OSError: if the annotation file cannot be read.
        ValueError: if it does not have an image, or two paths match the same image.
    """
    images, category = read_image_table(annotations)
    entries: dict[str, ImageEntry] = {}
    for path in paths:
        name = match_file_name(path, images.index_of_name)
        if name is None:
            raise ValueError(f"{annotations} has no image {path.name}: leave it out, or leave out --annotations")
        if name in entries:
            raise ValueError(
                f"{annotations}: {entries[name].path} and {path} both match its image {name}: give one folder of images"
            )
        index = images.index_of_name[name]
        width, height = images.sizes[index].tolist()
        recorded_size = (width, height) if width > 0 else None
        entries[name] = ImageEntry(path, name, images.ids[index], apply_exif=False, recorded_size=recorded_size)
    return list(entries.values()), category


def detect_images(
    entries: Sequence[ImageEntry],
    detector: str | Detector,
    warn: Callable[[str], None],
    box_threshold: float | None = None,
    accelerator: Accelerator | None = None,
) -> list[ImageBoxes]:
    """Detects persons in images, skipping unreadable images and those that differ from the recorded size.

    Args:
        entries: the images.
        detector: a name of `list_detectors()`, or an object with `detect`. Its boxes are cleaned as in `PoseEstimator`.
        warn: called with a line of text, with the reason, for each image that fails.
        box_threshold: boxes with lower scores, from 0 to 1, are dropped; None is the detector's threshold for files.
        accelerator: distributes the images over its processes, see `join_processes`; each process returns all results.

    Raises:
        OSError, TypeError, ValueError: if the detector or the threshold is invalid.
    """
    from tqdm import tqdm

    if box_threshold is None:
        box_threshold = detector_thresholds(detector).files
    cleaned = CleanedDetector(create_detector(detector, threshold=box_threshold), box_threshold)
    detected: list[tuple[int, ImageBoxes]] = []
    share = own_share(entries, accelerator, _SHARE)
    bar = tqdm(share, desc="detect", unit="image", disable=None if is_main(accelerator) else True)
    for group in read_groups(bar, lambda item: _read_upright(item[1])):
        images = [image for _, image in group if not isinstance(image, Exception)]
        found = iter(detect_group(cleaned, images))
        for (index, entry), image in group:
            try:
                if isinstance(image, Exception):
                    raise image
                detections = next(found)
                if isinstance(detections, Exception):
                    raise detections
                detected.append((index, _to_image_boxes(entry, image, *detections)))
            except (OSError, ValueError) as error:
                warn(f"{entry.path}: FAILED: {error}")
    return gather_items(detected, accelerator)


def _read_upright(entry: ImageEntry) -> NDArray[np.uint8]:
    return rgb_to_bgr(read_image(entry.path, apply_exif=True))


def _to_image_boxes(
    entry: ImageEntry, image: NDArray[np.uint8], boxes: NDArray[np.float32], scores: NDArray[np.float32]
) -> ImageBoxes:
    """Converts boxes (P, 4) of the upright image to the pixels that the box file refers to.

    Raises:
        ValueError: if the stored image has not the recorded size.
    """
    if entry.apply_exif:
        return ImageBoxes(entry.file_name, entry.image_id, (image.shape[1], image.shape[0]), boxes, scores)
    header = _stored_header(entry, image)
    size = header.width, header.height
    if entry.recorded_size not in (None, size):
        raise ValueError(
            f"the annotation file records {entry.recorded_size[0]} x {entry.recorded_size[1]} pixels (width x height), "
            f"the stored image has {size[0]} x {size[1]}: give the image that the annotations belong to"
        )
    corners = header.to_stored(boxes.reshape(-1, 2, 2).astype(np.float64), pixel_centers=False)
    stored = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    return ImageBoxes(entry.file_name, entry.image_id, size, stored, scores)


def _stored_header(entry: ImageEntry, image: NDArray[np.uint8]) -> ImageHeader:
    """Returns the stored size and the orientation of an image; formats that Pillow cannot read have no orientation."""
    try:
        return read_header(entry.path)
    except OSError:
        return ImageHeader(image.shape[1], image.shape[0])
