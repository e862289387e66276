"""Parts that all conversions to COCO keypoint files share: records, image headers and the result."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from posedy.data.issues import IssueLog
from posedy.data.orientation import ImageHeader, read_header
from posedy.geometry import FloatArray, xyxy_to_xywh
from posedy.skeleton import COCO17

# Decimals of pixel coordinates: the rounding errors of other formats are smaller, so that whole pixels are restored.
_DECIMALS = 7
_CATEGORY_ID = 1


@dataclass(frozen=True)
class ConvertedFile:
    """Annotations of another format, converted to COCO.

    Attributes:
        content: the content of a COCO keypoint file.
        image_dir: the folder that its file names are relative to.
        left_out: number of objects that are not in it, by reason.
        notes: sentences about assumptions of the conversion.
    """

    content: dict[str, Any]
    image_dir: Path
    left_out: dict[str, int]
    notes: tuple[str, ...]


def create_category(
    name: str,
    keypoints: Sequence[str],
    flip_permutation: Sequence[int] | None = None,
    limbs: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Creates the record of the category; COCO's 17 keypoints have the limbs and sigmas of COCO.

    Args:
        name: the category's name.
        keypoints: K keypoint names.
        flip_permutation: K indices; keypoint i of a flipped image is keypoint flip_permutation[i] of the image. None if
            it is unknown.
        limbs: pairs of names that are connected by a line in plots.
    """
    names = tuple(keypoints)
    if names == COCO17.keypoints and flip_permutation in (None, COCO17.flip_permutation) and not limbs:
        return {**COCO17.to_coco_category(), "id": _CATEGORY_ID, "name": name}
    pairs = [[names.index(first) + 1, names.index(second) + 1] for first, second in limbs]
    record = {"supercategory": name, "id": _CATEGORY_ID, "name": name, "keypoints": list(names), "skeleton": pairs}
    if flip_permutation is not None:
        record["flip_pairs"] = [[index, other] for index, other in enumerate(flip_permutation) if index < other]
    return record


def create_annotation(box: FloatArray, keypoints: FloatArray, header: ImageHeader) -> dict[str, Any]:
    """Creates the record of a person without ids, in pixels as stored; the area is that of the box.

    Args:
        box: (4,) xyxy in pixels of the upright image.
        keypoints: (K, 3) x, y in pixels of the upright image, and v.
        header: the image.
    """
    corners = np.sort(header.to_stored(box.reshape(2, 2), pixel_centers=False), axis=0)
    bbox = xyxy_to_xywh(corners.reshape(1, 4))[0].round(_DECIMALS).tolist()
    points = header.to_stored(keypoints[:, :2], pixel_centers=True).round(_DECIMALS)
    labeled = keypoints[:, 2:] > 0
    triplets = np.concatenate([np.where(labeled, points, 0.0), keypoints[:, 2:]], axis=-1)
    return {
        "category_id": _CATEGORY_ID,
        "iscrowd": 0,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "num_keypoints": int(labeled.sum()),
        "keypoints": [value for x, y, v in triplets.tolist() for value in (x, y, int(v))],
    }


def read_image_headers(paths: Sequence[Path], log: IssueLog) -> dict[Path, ImageHeader]:
    """Reads the headers of image files; those that cannot be read are logged as errors and left out."""
    Image.preinit()  # Pillow loads its plugins at the first open, which is not thread-safe
    errors = []

    def read(path: Path) -> ImageHeader | OSError:
        try:
            return read_header(path)
        except OSError as error:
            return error

    headers = {}
    with ThreadPoolExecutor() as pool:
        for path, result in zip(paths, pool.map(read, paths), strict=True):
            if isinstance(result, ImageHeader):
                headers[path] = result
            else:
                errors.append(str(result))
    log.add("error", "unreadable image", errors, str, "Expected JPEG, PNG, BMP, TIFF or WebP files.")
    return headers
