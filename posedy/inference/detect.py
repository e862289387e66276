"""The command `posedy detect`: person boxes of photos, in a file for `posedy test` and `posedy demo`."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posedy.inference.box_threshold import box_threshold_argument
from posedy.inference.photo_paths import photo_paths

if TYPE_CHECKING:  # heavy
    from posedy.inference.detected import DetectedPhoto
    from posedy.inference.detectors import CleanedDetector, Detector

# AP is taken over all scores: leaving boxes out here can only lower it. The demo leaves out what it does not show.
_THRESHOLD = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders of photos, or patterns")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="an object with images and annotations, in upright pixels, for posedy demo --boxes FILE; with "
        "--annotations a COCO results list, in stored pixels, for posedy test --boxes FILE too",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="a COCO file that gives the photos their names and ids; posedy demo takes it beside the list, and knows "
        "photos without persons by it",
    )
    parser.add_argument("--detector-weights", type=Path, metavar="FILE", help="default: torchvision's, fetched once")
    parser.add_argument(
        "--box-threshold",
        type=box_threshold_argument,
        default=_THRESHOLD,
        metavar="SCORE",
        help="leave out boxes under it, from 0 to 1 (default: %(default)s, since AP counts the unsure ones too)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command: 0 when all photos were looked at, 1 when some could not be.

    Raises:
        OSError, ValueError: if an argument does not fit, or no photo could be looked at; nothing is written then.
    """
    from tqdm import tqdm

    from posedy.files import check_can_write, write_json_atomically
    from posedy.inference.detected import to_annotations, to_results
    from posedy.inference.detectors import TorchvisionDetector

    check_can_write(arguments.out)
    paths = photo_paths(arguments.photos)
    for given in (*paths, arguments.annotations, arguments.detector_weights):
        if given is not None and given.resolve() == arguments.out.resolve():
            raise ValueError(f"--out {arguments.out} would take the place of {given}: choose another --out")
    if arguments.annotations is not None:
        photos, category = photos_of_annotations(paths, arguments.annotations)
    else:
        photos = photos_by_themselves(paths)
    detector = TorchvisionDetector(arguments.detector_weights, arguments.device, arguments.box_threshold)
    # a progress bar stands on the same screen
    detected = detect_photos(photos, detector, warn=lambda line: tqdm.write(line, file=sys.stderr))
    failed = len(photos) - len(detected)
    if not detected:
        raise ValueError(f"none of the {failed} photos could be looked at, and nothing was written: see above why")
    content = to_results(detected, category) if arguments.annotations is not None else to_annotations(detected)
    write_json_atomically(arguments.out, content)
    with_boxes = sum(len(photo.boxes) > 0 for photo in detected)
    print(f"{sum(len(photo.boxes) for photo in detected)} boxes on {with_boxes} of {len(detected)} photos")
    print(f"wrote {arguments.out}")
    if failed:
        print(f"posedy detect: {failed} of {len(photos)} photos NOT DONE: see above why", file=sys.stderr)
    return int(failed > 0)


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
    from posedy.inference.box_files import name_of, named_images

    ids, sizes, category = named_images(annotations)
    photos: dict[str, Photo] = {}
    for path in paths:
        name = name_of(path, ids)
        if name is None:
            raise ValueError(f"{annotations} has no image {path.name}: leave it out, or leave out --annotations")
        if name in photos:
            raise ValueError(
                f"{annotations}: {photos[name].path} and {path} are both its image {name}: give one folder of photos"
            )
        photos[name] = Photo(path, name, ids[name], upright=False, recorded=sizes.get(name))
    return list(photos.values()), category


def detect_photos(photos: Sequence[Photo], detector: "Detector", warn: Callable[[str], None]) -> "list[DetectedPhoto]":
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


def _detect(photo: Photo, detector: "CleanedDetector") -> "DetectedPhoto":
    from posedy.data.photos import read_photo
    from posedy.inference.detected import DetectedPhoto
    from posedy.inference.images import rgb_to_bgr

    image = rgb_to_bgr(read_photo(photo.path, honour_exif=photo.upright))
    height, width = image.shape[:2]
    if photo.recorded not in (None, (width, height)):
        raise ValueError(
            f"the annotation file records {photo.recorded[0]} x {photo.recorded[1]} pixels, as stored the photo has "
            f"{width} x {height}: boxes would not fit the annotations; give the photo that they belong to"
        )
    boxes, scores = detector.detect(image)
    return DetectedPhoto(photo.file_name, photo.image_id, (width, height), boxes, scores)
