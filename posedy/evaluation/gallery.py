"""Image of the best, median and worst persons of an evaluation: ground truth next to prediction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.drawing import WHITE, draw_caption, draw_poses
from posedy.evaluation.matching import MatchedPersons
from posedy.geometry import apply_affine, image_to_crop_matrix, padded_region, warp_crop, xywh_to_xyxy
from posedy.images import read_image

_PERSONS_PER_ROW = 6
_TILE_SIZE = (144, 192)
_GRAY = 96


def select_gallery(persons: MatchedPersons) -> dict[str, NDArray[np.int64]]:
    """Selects the persons with the best, median and worst OKS; returns the indices of each row by its name."""
    ranking = np.argsort(-persons.oks, kind="stable")
    count = min(_PERSONS_PER_ROW, len(ranking))
    middle = max((len(ranking) - count) // 2, 0)
    return {
        "best": ranking[:count],
        "median": ranking[middle : middle + count],
        "worst": ranking[len(ranking) - count :],
    }


def draw_gallery(
    persons: MatchedPersons,
    find_image: Callable[[Any], Path],
    on_missing: Callable[[Any, Exception], object] | None = None,
) -> NDArray[np.uint8]:
    """Draws rows of the best, median and worst persons: ground truth (left), prediction (right) and OKS.

    Args:
        persons: ground-truth persons with their matched predictions.
        find_image: returns the image file of an image id.
        on_missing: called with the image id and the error for each person whose image cannot be read; the person is
            drawn on gray. Without it the error is raised.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError: if an image cannot be read.
        ValueError: if `find_image` does not know the image.
    """
    rows = []
    for name, indices in select_gallery(persons).items():
        pairs = []
        for person in indices.tolist():
            label, image_id = f"{name} {persons.oks[person]:.2f}", persons.image_ids[person]
            image: NDArray[np.uint8] | None = None
            try:
                image = read_image(find_image(image_id))
            except (OSError, ValueError) as error:  # an invalid file name raises ValueError
                if on_missing is None:
                    raise
                on_missing(image_id, error)
                label += ", no image"
            pairs.append(_draw_pair(persons, person, image, label))
        rows.append(np.hstack(pairs))
    return np.vstack(rows)


def _draw_pair(persons: MatchedPersons, person: int, image: NDArray[np.uint8] | None, label: str) -> NDArray[np.uint8]:
    box = xywh_to_xyxy(persons.boxes[person])
    if not (box[2:] > box[:2]).all():  # an empty box: use the extent of the labeled keypoints
        keypoints = persons.gt_keypoints[person, persons.labeled[person]]
        box = np.concatenate([keypoints.min(axis=0) - 1, keypoints.max(axis=0) + 1])
    image_to_tile = image_to_crop_matrix(*padded_region(box, _TILE_SIZE[0] / _TILE_SIZE[1]), _TILE_SIZE)
    gray = np.full((_TILE_SIZE[1], _TILE_SIZE[0], 3), _GRAY, dtype=np.uint8)
    tile = warp_crop(image, image_to_tile, _TILE_SIZE) if image is not None else gray
    tiles = []
    for keypoints, scores in (
        (persons.gt_keypoints[person], persons.visibility[person]),
        (persons.pred_keypoints[person], persons.keypoint_scores[person]),
    ):
        in_tile = apply_affine(image_to_tile, np.nan_to_num(keypoints))
        tiles.append(draw_poses(tile, in_tile[None], np.asarray(scores, dtype=np.float64)[None], persons.skeleton))
    pair = np.hstack(tiles)
    return np.pad(np.vstack([draw_caption(pair.shape[1], (label, WHITE)), pair]), ((0, 2), (0, 2), (0, 0)))
