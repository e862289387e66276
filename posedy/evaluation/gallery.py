"""A picture of the best, median and worst persons of a test: truth beside prediction."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posedy.data.photos import read_photo
from posedy.drawing import WHITE, caption, draw_poses
from posedy.evaluation.matching import MatchedPersons
from posedy.geometry import apply_affine, image_to_crop_matrix, padded_region, warp_crop, xywh_to_xyxy

_PERSONS_OF_A_ROW = 6
_TILE = (144, 192)


def best_median_worst(persons: MatchedPersons, photo_of: Callable[[Any], Path]) -> NDArray[np.uint8]:
    """Three rows of tiles, each the truth (left) beside the prediction (right) and its OKS: RGB.

    Args:
        persons: with the poses that they were matched with.
        photo_of: the photo of an image id.

    Raises:
        OSError: if a photo cannot be read.
    """
    ranking = np.argsort(-persons.oks, kind="stable")
    count = min(_PERSONS_OF_A_ROW, len(ranking))
    middle = max((len(ranking) - count) // 2, 0)
    rows = []
    for name, chosen in (
        ("best", ranking[:count]),
        ("median", ranking[middle : middle + count]),
        ("worst", ranking[len(ranking) - count :]),
    ):
        pairs = [_pair(persons, int(person), photo_of, f"{name} {persons.oks[person]:.2f}") for person in chosen]
        rows.append(np.hstack(pairs))
    return np.vstack(rows)


def _pair(persons: MatchedPersons, person: int, photo_of: Callable[[Any], Path], words: str) -> NDArray[np.uint8]:
    photo = read_photo(photo_of(persons.image_ids[person]))
    box = xywh_to_xyxy(persons.boxes[person])
    if not (box[2:] > box[:2]).all():  # what is labelled says where the person is
        points = persons.truth[person, persons.labelled[person]]
        box = np.concatenate([points.min(axis=0) - 1, points.max(axis=0) + 1])
    image_to_tile = image_to_crop_matrix(*padded_region(box, _TILE[0] / _TILE[1]), _TILE)
    tile = warp_crop(photo, image_to_tile, _TILE)
    tiles = []
    for keypoints, scores in (
        (persons.truth[person], persons.visibility[person]),
        (persons.predicted[person], persons.keypoint_scores[person]),
    ):
        points = apply_affine(image_to_tile, np.nan_to_num(keypoints))
        tiles.append(draw_poses(tile, points[None], np.asarray(scores, dtype=np.float64)[None], persons.skeleton))
    pair = np.hstack(tiles)
    return np.pad(np.vstack([caption(pair.shape[1], (words, WHITE)), pair]), ((0, 2), (0, 2), (0, 0)))
