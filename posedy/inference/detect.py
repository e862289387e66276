"""The command `posedy detect`: person boxes of photos, in a file for `posedy test` and `posedy demo`."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posedy.inference.box_threshold import box_threshold_argument
from posedy.inference.photo_paths import photo_paths

# AP is taken over all scores: leaving boxes out here can only lower it. The demo leaves out what it does not show.
_THRESHOLD = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders of photos, or patterns")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a list of boxes in COCO's form")
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="a COCO file that gives the photos their ids, for posedy test"
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
    """Runs the command."""
    from posedy.files import write_json_atomically
    from posedy.inference.detectors import TorchvisionDetector

    photos = photo_paths(arguments.photos)
    known = known_photos(arguments.annotations, photos) if arguments.annotations is not None else None
    detector = TorchvisionDetector(arguments.detector_weights, arguments.device, arguments.box_threshold)
    records = detect_photos(photos, detector, known)
    write_json_atomically(arguments.out, records)
    print(f"{len(records)} boxes on {len({record['file_name'] for record in records})} of {len(photos)} photos")
    print(f"wrote {arguments.out}")
    return 0


def detect_photos(
    photos: Sequence[Path], detector: Any, known: tuple[Mapping[Path, int | str], int] | None = None
) -> list[dict[str, Any]]:
    """The boxes of photos as records in COCO's form.

    Photos of an annotation file are read as COCO readers do, without their EXIF orientation, so that boxes fit its
    annotations; others upright, as `posedy demo` reads them.

    Args:
        photos: the files.
        detector: see `Detector`.
        known: ids of the photos, and the category of persons, of an annotation file.

    Raises:
        OSError: if a photo cannot be read.
        ValueError: if two photos of no annotation file have the same name, by which the boxes name them.
    """
    import numpy as np
    from tqdm import tqdm

    from posedy.data.photos import read_photo
    from posedy.geometry import xyxy_to_xywh
    from posedy.inference.images import rgb_to_bgr

    [(name, count)] = Counter(photo.name for photo in photos).most_common(1)
    if known is None and count > 1:
        raise ValueError(
            f"{count} photos are named {name}: boxes name photos without their folders; detect them folder by folder, "
            "or give an annotation file"
        )
    ids, category = known if known is not None else ({}, 1)
    records = []
    for photo in tqdm(photos, desc="detect", unit="photo", disable=None):
        boxes, scores = detector.detect(rgb_to_bgr(read_photo(photo, honour_exif=known is None)))
        for box, score in zip(xyxy_to_xywh(boxes).tolist(), np.asarray(scores).tolist(), strict=True):
            identity = {"image_id": ids[photo]} if photo in ids else {}
            records.append({**identity, "file_name": photo.name, "category_id": category, "bbox": box, "score": score})
    return records


def known_photos(annotations: Path, photos: Sequence[Path]) -> tuple[dict[Path, int | str], int]:
    """The ids of photos, by the ends of their paths, and the category id of persons in an annotation file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it does not know a photo, or two photos are the same of its images.
    """
    from posedy.inference.box_files import named_images

    by_name, _, category = named_images(annotations)
    ids: dict[Path, int | str] = {}
    for photo in photos:
        parts = photo.absolute().parts
        ends = (Path(*parts[start:]).as_posix() for start in range(len(parts)))
        name = next((end for end in ends if end in by_name), None)
        if name is None:
            raise ValueError(f"{annotations} has no image {photo.name}: leave it out, or leave out --annotations")
        ids[photo] = by_name[name]
    if len(set(ids.values())) < len(ids):
        raise ValueError(f"{annotations}: two of the photos are the same of its images: give one folder of photos")
    return ids, category
