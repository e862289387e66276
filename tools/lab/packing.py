"""Packing a training set: each person as a small picture of their own, with room for the augmentation.

Training decodes a whole photo for each person, which is most of a sample's time. A packed set holds only what the
crops of a person can show, no finer than they show it; it is a COCO tree like any other, to train on and not to test on
(neighbors are cut apart).
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posedy.data.coco import CocoPersons
from posedy.files import write_json_atomically
from posedy.geometry import FloatArray, padded_region, xyxy_to_xywh
from posedy.images import read_image


def pack_persons(
    persons: CocoPersons,
    out: Path | str,
    *,
    input_size: tuple[int, int] = (192, 256),
    padding: float = 1.25,
    room: float = 1.5,
    quality: int = 85,
    progress: bool = False,
) -> Path:
    """Writes each person as a JPEG file of their own, and a COCO file of them.

    A picture shows a square around the padded box, `room` times its longer side, as far as the photo goes: crops that
    are turned or zoomed out further are black there. It is made smaller where the padded box is larger than the crop.
    Files of an earlier packing in the folder are replaced.

    Args:
        persons: the set, read with its photos.
        out: the folder; gets images/ and annotations.json. Image ids are the annotations' ids.
        input_size: (W, H) of the crops to be trained on.
        padding: of the boxes.
        room: see above.
        quality: of the JPEG files.
        progress: whether to show a bar.

    Returns:
        The path of annotations.json.

    Raises:
        OSError: if a photo cannot be read or a file cannot be written.
        ValueError: if room or quality are out of range.
    """
    if room < 1:
        raise ValueError(f"room is at least 1, the padded box itself, got {room}")
    if not 1 <= quality <= 100:
        raise ValueError(f"the quality of JPEG files is 1 to 100, got {quality}")
    out = Path(out)
    width, height = input_size
    centers, sizes = padded_region(persons.boxes, width / height, padding)
    longer = sizes.max(axis=-1)
    scales = np.minimum(1.0, max(input_size) / longer)
    # without its annotations, which come last, an unfinished set is none
    annotations_file, folder = out / "annotations.json", out / "images"
    annotations_file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    photo, photo_index = None, -1
    for index in tqdm(
        np.argsort(persons.image_index, kind="stable"), desc="packing", disable=None if progress else True
    ):
        if photo is None or persons.image_index[index] != photo_index:
            photo_index = int(persons.image_index[index])
            photo = read_image(persons.image_path(photo_index))
        half = room * longer[index] / 2
        picture, offset, scale = _cut(photo, centers[index] - half, centers[index] + half, float(scales[index]))
        person_id = int(persons.annotation_ids[index])
        name = f"{person_id:012d}.jpg"
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        (folder / name).write_bytes(jpeg.tobytes())
        images.append({"id": person_id, "file_name": name, "width": picture.shape[1], "height": picture.shape[0]})
        annotations.append(_annotation(persons, int(index), offset, scale))
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


def _cut(
    photo: NDArray[np.uint8], low: FloatArray, high: FloatArray, scale: float
) -> tuple[NDArray[np.uint8], FloatArray, FloatArray]:
    """Cuts a rectangle out of a photo, as far as that goes, and makes it smaller.

    Returns:
        The picture, and offset (2,) and scale (2,) of the map to it: packed = (image - offset + 0.5) * scale - 0.5.
    """
    size = np.array(photo.shape[1::-1])
    start = np.clip(np.floor(low), 0, size - 1).astype(int)
    stop = np.maximum(np.clip(np.ceil(high), 0, size).astype(int), start + 1)
    picture = photo[start[1] : stop[1], start[0] : stop[0]]
    new_size = np.maximum(np.round((stop - start) * scale), 1).astype(int)
    if scale < 1:
        picture = cv2.resize(picture, new_size.tolist(), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return picture, start.astype(np.float64), new_size / (stop - start)


def _annotation(persons: CocoPersons, index: int, offset: FloatArray, scale: FloatArray) -> dict[str, Any]:
    """The record of a person in their own picture."""
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
