"""A picture of the best, median and worst persons of a test: truth beside prediction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.drawing import WHITE, caption, draw_poses
from posedy.evaluation.matching import MatchedPersons
from posedy.geometry import apply_affine, image_to_crop_matrix, padded_region, warp_crop, xywh_to_xyxy
from posedy.images import read_image

_PERSONS_OF_A_ROW = 6
_TILE = (144, 192)
_GRAY = 96


def shown_persons(persons: MatchedPersons) -> dict[str, NDArray[np.int64]]:
    """The indices of the persons in each row of the picture, by the row's name."""
    ranking = np.argsort(-persons.oks, kind="stable")
    count = min(_PERSONS_OF_A_ROW, len(ranking))
    middle = max((len(ranking) - count) // 2, 0)
    return {
        "best": ranking[:count],
        "median": ranking[middle : middle + count],
        "worst": ranking[len(ranking) - count :],
    }


def best_median_worst(
    persons: MatchedPersons,
    photo_of: Callable[[Any], Path],
    on_missing: Callable[[Any, Exception], object] | None = None,
) -> NDArray[np.uint8]:
    """Three rows of tiles, each the truth (left) beside the prediction (right) and its OKS: RGB.

    Args:
        persons: with the poses that they were matched with.
        photo_of: the photo of an image id.
        on_missing: called with the image id and the error of each photo that cannot be read, once for each person on
            it, whose poses then are on gray; without it the error is raised.

    Raises:
        OSError: if a photo cannot be read.
        ValueError: if `photo_of` knows no photo.
    """
    rows = []
    for name, chosen in shown_persons(persons).items():
        pairs = []
        for person in chosen.tolist():
            words, image_id = f"{name} {persons.oks[person]:.2f}", persons.image_ids[person]
            photo: NDArray[np.uint8] | None = None
            try:
                photo = read_image(photo_of(image_id))
            except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
                if on_missing is None:
                    raise
                on_missing(image_id, error)
                words += ", no photo"
            pairs.append(_pair(persons, person, photo, words))
        rows.append(np.hstack(pairs))
    return np.vstack(rows)


def _pair(persons: MatchedPersons, person: int, photo: NDArray[np.uint8] | None, words: str) -> NDArray[np.uint8]:
    box = xywh_to_xyxy(persons.boxes[person])
    if not (box[2:] > box[:2]).all():  # what is labeled says where the person is
        points = persons.truth[person, persons.labeled[person]]
        box = np.concatenate([points.min(axis=0) - 1, points.max(axis=0) + 1])
    image_to_tile = image_to_crop_matrix(*padded_region(box, _TILE[0] / _TILE[1]), _TILE)
    gray = np.full((_TILE[1], _TILE[0], 3), _GRAY, dtype=np.uint8)
    tile = warp_crop(photo, image_to_tile, _TILE) if photo is not None else gray
    tiles = []
    for keypoints, scores in (
        (persons.truth[person], persons.visibility[person]),
        (persons.predicted[person], persons.keypoint_scores[person]),
    ):
        points = apply_affine(image_to_tile, np.nan_to_num(keypoints))
        tiles.append(draw_poses(tile, points[None], np.asarray(scores, dtype=np.float64)[None], persons.skeleton))
    pair = np.hstack(tiles)
    return np.pad(np.vstack([caption(pair.shape[1], (words, WHITE)), pair]), ((0, 2), (0, 2), (0, 0)))
