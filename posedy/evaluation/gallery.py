"""A picture of the best, median and worst persons of a test: truth beside prediction."""

import numpy as np
from numpy.typing import NDArray

from posedy.data.coco import CocoPersons
from posedy.data.photos import read_photo
from posedy.drawing import WHITE, caption, draw_poses
from posedy.evaluation.tester import BoxPoses
from posedy.geometry import FloatArray, apply_affine, image_to_crop_matrix, padded_region, warp_crop

_PERSONS_OF_A_ROW = 6
_TILE = (144, 192)


def person_oks(persons: CocoPersons, poses: BoxPoses) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How well each person of the truth was found.

    COCO's OKS over the labelled keypoints, with half of the box's area for the segment's, of the best pose among those
    of the person's image.

    Returns:
        OKS (P,), 0 where an image has no poses, and the index (P,) of that pose, -1 if none.
    """
    variances = (2 * np.asarray(persons.skeleton.sigmas)) ** 2
    best, which = np.zeros(len(persons)), np.full(len(persons), -1, dtype=np.int64)
    order = np.argsort(poses.image_index, kind="stable")
    begins = np.searchsorted(poses.image_index[order], persons.image_index, side="left")
    ends = np.searchsorted(poses.image_index[order], persons.image_index, side="right")
    for person, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        candidates = order[begin:end]
        if len(candidates) == 0:
            continue
        labelled = persons.visibility[person] > 0
        box = persons.boxes[person].astype(np.float64)
        area = max((box[2:] - box[:2]).prod() / 2, 1)
        distances = ((poses.keypoints[candidates] - persons.keypoints[person]) ** 2).sum(axis=-1)
        oks = np.exp(-distances / variances / area / 2)[:, labelled].mean(axis=1)
        best[person], which[person] = oks.max(), candidates[oks.argmax()]
    return best, which


def best_median_worst(persons: CocoPersons, poses: BoxPoses) -> NDArray[np.uint8]:
    """Three rows of tiles, each the truth (left) beside the prediction (right) and its OKS: RGB."""
    oks, which = person_oks(persons, poses)
    ranking = np.argsort(-oks, kind="stable")
    count = min(_PERSONS_OF_A_ROW, len(ranking))
    middle = max((len(ranking) - count) // 2, 0)
    rows = []
    for name, chosen in (
        ("best", ranking[:count]),
        ("median", ranking[middle : middle + count]),
        ("worst", ranking[len(ranking) - count :]),
    ):
        tiles = []
        for person in map(int, chosen):
            tiles.append(_pair(persons, poses, person, int(which[person]), f"{name} {oks[person]:.2f}"))
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def _pair(persons: CocoPersons, poses: BoxPoses, person: int, pose: int, words: str) -> NDArray[np.uint8]:
    photo = read_photo(persons.image_path(int(persons.image_index[person])))
    center, size = padded_region(persons.boxes[person], _TILE[0] / _TILE[1])
    image_to_tile = image_to_crop_matrix(center, size, _TILE)
    tile = warp_crop(photo, image_to_tile, _TILE)
    labelled = persons.visibility[person] > 0
    truth = _drawn(tile, persons, apply_affine(image_to_tile, persons.keypoints[person]), labelled)
    found = tile
    if pose >= 0:
        found = _drawn(tile, persons, apply_affine(image_to_tile, poses.keypoints[pose]), poses.scores[pose])
    pair = np.hstack([truth, found])
    return np.pad(np.vstack([caption(pair.shape[1], (words, WHITE)), pair]), ((0, 2), (0, 2), (0, 0)))


def _drawn(tile: NDArray[np.uint8], persons: CocoPersons, keypoints: FloatArray, scores: NDArray) -> NDArray[np.uint8]:
    return draw_poses(tile, keypoints[None], np.asarray(scores, dtype=np.float64)[None], persons.skeleton)
