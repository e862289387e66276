"""Packs a training set: one small image per person, with a margin for the augmentation.

Decoding a full image takes most of the time of a training sample. A packed image contains only the region that crops
of the person can cover, at no more than their resolution. A packed set is an ordinary COCO dataset, for training only:
neighbors are on separate images, so it must not be used for evaluation.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posedy.data.coco import CocoPersons
from posedy.files import write_json_atomically
from posedy.geometry import FloatArray, padded_region, xyxy_to_xywh
from posedy.images import encode_jpeg, read_image, rgb_to_bgr


class PackedPerson(NamedTuple):
    """A person on an image of its own.

    Attributes:
        jpeg: the JPEG file.
        width: width of the image in pixels.
        height: height of the image in pixels.
        annotation: the COCO record; its ids of the image and of the annotation are the annotation's.
    """

    jpeg: bytes
    width: int
    height: int
    annotation: dict[str, Any]


def crop_persons(
    persons: CocoPersons,
    *,
    input_size: tuple[int, int] = (192, 256),
    padding: float = 1.25,
    margin: float = 1.5,
    quality: int = 85,
    progress: bool = False,
) -> Iterator[PackedPerson]:
    """Yields each person as a small image, image by image.

    An image shows a square around the padded box, `margin` times its longer side, clipped to the original image: crops
    that are rotated or zoomed out further are black there. It is downscaled if the padded box is larger than the crop.

    Args:
        persons: the dataset, read with its image folder.
        input_size: (W, H) of the training crops.
        padding: factor on the size of the boxes.
        margin: side of the square in units of the longer side of the padded box.
        quality: JPEG quality of the images.
        progress: whether to show a progress bar.

    Raises:
        OSError: if an image cannot be read.
        ValueError: if margin or quality is out of range, before the first person.
    """
    if margin < 1:
        raise ValueError(f"margin must be at least 1 (the padded box), got {margin}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be from 1 to 100, got {quality}")
    return _crop_persons(persons, input_size, padding, margin, quality, progress)


def _crop_persons(
    persons: CocoPersons, input_size: tuple[int, int], padding: float, margin: float, quality: int, progress: bool
) -> Iterator[PackedPerson]:
    width, height = input_size
    centers, sizes = padded_region(persons.boxes, width / height, padding)
    longer = sizes.max(axis=-1)
    scales = np.minimum(1.0, max(input_size) / longer)
    image, image_index = None, -1
    for index in tqdm(
        np.argsort(persons.image_index, kind="stable"), desc="packing", disable=None if progress else True
    ):
        if image is None or persons.image_index[index] != image_index:
            image_index = int(persons.image_index[index])
            image = read_image(persons.image_path(image_index))
        half = margin * longer[index] / 2
        packed, offset, scale = _crop(image, centers[index] - half, centers[index] + half, float(scales[index]))
        jpeg = encode_jpeg(rgb_to_bgr(packed), quality)
        annotation = _annotation(persons, int(index), offset, scale)
        yield PackedPerson(jpeg, packed.shape[1], packed.shape[0], annotation)


def pack_persons(
    persons: CocoPersons,
    out: Path | str,
    *,
    input_size: tuple[int, int] = (192, 256),
    padding: float = 1.25,
    margin: float = 1.5,
    quality: int = 85,
    progress: bool = False,
) -> Path:
    """Writes each person as a JPEG file, and a COCO file of all of them.

    Files of an earlier packing in the folder are replaced.

    Args:
        persons: the dataset, read with its image folder.
        out: output folder for images/ and annotations.json. Image ids are the annotation ids.
        input_size: see `crop_persons`, also for the other arguments.
        padding: factor on the size of the boxes.
        margin: side of an image in units of the longer side of the padded box.
        quality: JPEG quality of the images.
        progress: whether to show a progress bar.

    Returns:
        The path of annotations.json.

    Raises:
        OSError: if an image cannot be read or a file cannot be written.
        ValueError: if margin or quality is out of range.
    """
    packed = crop_persons(
        persons, input_size=input_size, padding=padding, margin=margin, quality=quality, progress=progress
    )
    out = Path(out)
    # annotations.json is written last, so that an interrupted packing leaves no readable set
    annotations_file, folder = out / "annotations.json", out / "images"
    annotations_file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for person in packed:
        person_id = person.annotation["id"]
        name = f"{person_id:012d}.jpg"
        (folder / name).write_bytes(person.jpeg)
        images.append({"id": person_id, "file_name": name, "width": person.width, "height": person.height})
        annotations.append(person.annotation)
    width, height = input_size
    write_json_atomically(
        annotations_file,
        {
            "info": {"description": f"persons of {persons.annotations.name}, packed for training at {width}x{height}"},
            "categories": [persons.skeleton.to_coco_category() | {"id": persons.category_id}],
            "images": images,
            "annotations": annotations,
        },
    )
    return annotations_file


def _crop(
    image: NDArray[np.uint8], low: FloatArray, high: FloatArray, scale: float
) -> tuple[NDArray[np.uint8], FloatArray, FloatArray]:
    """Crops a rectangle, clipped to the image, and downscales it.

    Returns:
        The crop, and offset (2,) and scale (2,) of its coordinates: packed = (image - offset + 0.5) * scale - 0.5.
    """
    size = np.array(image.shape[1::-1])
    start = np.clip(np.floor(low), 0, size - 1).astype(int)
    stop = np.maximum(np.clip(np.ceil(high), 0, size).astype(int), start + 1)
    crop = image[start[1] : stop[1], start[0] : stop[0]]
    new_size = np.maximum(np.round((stop - start) * scale), 1).astype(int)
    if scale < 1:
        crop = cv2.resize(crop, new_size.tolist(), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return crop, start.astype(np.float64), new_size / (stop - start)


def _annotation(persons: CocoPersons, index: int, offset: FloatArray, scale: FloatArray) -> dict[str, Any]:
    """Returns the annotation record of a person in the packed image."""
    visibility = persons.visibility[index]
    keypoints = (persons.keypoints[index] - offset + 0.5) * scale - 0.5
    keypoints = np.where(visibility[:, None] > 0, keypoints, 0)
    corners = (persons.boxes[index].reshape(2, 2) - offset + 0.5) * scale - 0.5
    box = xyxy_to_xywh(corners.reshape(4))
    person_id = int(persons.annotation_ids[index])
    return {
        "id": person_id,
        "image_id": person_id,
        "category_id": persons.category_id,
        "iscrowd": 0,
        "bbox": np.round(box, 3).tolist(),
        "area": round(float(box[2] * box[3]), 3),
        "keypoints": np.round(np.column_stack([keypoints, visibility]), 3).ravel().tolist(),
        "num_keypoints": int((visibility > 0).sum()),
    }
