"""Generation of a synthetic dataset in COCO's folder structure, atomic and in several processes."""

import json
import multiprocessing
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from posedy.cpu_threads import visible_cpus
from posedy.files import write_json_atomically
from posedy.images import encode_jpeg
from tools.lab.synthetic.layout import CATEGORY, DETECTIONS_FILE, FOLDERS, MARK, SPLITS, is_dataset_path, keypoints_file
from tools.lab.synthetic.scene import generate_image
from tools.lab.synthetic.simulated_detector import simulate_detections
from tools.lab.synthetic.statistics import DatasetStatistics

_STAGING = ".drawing-"
_IMAGES_PER_PROCESS = 300  # starting a process takes longer than generating fewer images
# intervals in images; the first image of a split has both
_CROWD_EVERY, _FAR_PEOPLE_EVERY = 12, 9


@dataclass(frozen=True)
class _WrittenImage:
    """COCO records and statistics of an image that a process has written."""

    image: dict[str, Any]
    annotations: list[dict[str, Any]]
    detections: list[dict[str, Any]]
    statistics: DatasetStatistics


def generate_dataset(
    out: Path,
    train: int,
    val: int,
    seed: int,
    progress: bool = False,
    processes: int | None = None,
) -> dict[str, DatasetStatistics]:
    """Generates a dataset of synthetic people in COCO's folder structure.

    Writes train2017/, val2017/ and annotations/ with person_keypoints_train2017.json, person_keypoints_val2017.json and
    person_detections_val2017.json (boxes of a simulated detector) to `out`, where an existing synthetic dataset is
    replaced. The dataset depends on the seed, but not on the number of processes. Large datasets are generated in
    spawned processes, which requires `if __name__ == "__main__":` in a calling script; without it, a single process
    generates all images.

    Args:
        out: output folder, which must be new, empty or a synthetic dataset.
        train: number of training images.
        val: number of validation images.
        seed: non-negative random seed.
        progress: whether to show a progress bar.
        processes: number of processes; by default one per CPU for large datasets, otherwise only this one.

    Returns:
        The statistics of 'train' and 'val'.

    Raises:
        ValueError: if a number is out of range, or `out` contains other files.
        OSError: if a file cannot be written.
    """
    out = Path(out)
    for name, value, minimum in (("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value}")
    _check_out_folder(out)
    if processes is None:
        processes = max(1, min(visible_cpus(), (train + val) // _IMAGES_PER_PROCESS))
    statistics = {}
    with (
        _pool(processes) as map_images,
        _staging(out) as folder,
        tqdm(total=train + val, desc="generating", unit="image", disable=not progress) as bar,
    ):
        for split, (name, count) in enumerate((("train", train), ("val", val))):
            image_folder = folder / SPLITS[name]
            image_folder.mkdir()
            images = []
            for image in map_images(partial(_generate_and_write, image_folder, seed, split), range(count)):
                images.append(image)
                bar.update()
            statistics[name] = sum((image.statistics for image in images), DatasetStatistics())
            _write_annotations(folder, name, seed, images, statistics[name])
    return statistics


def _generate_and_write(folder: Path, seed: int, split: int, index: int) -> _WrittenImage:
    """Generates and writes one image; its random generator depends only on the arguments, not on the process."""
    rng = np.random.default_rng((seed, split, index))
    generated = generate_image(
        rng, with_crowd=index % _CROWD_EVERY == 0, with_far_people=index % _FAR_PEOPLE_EVERY == 0
    )
    image_id = index + 1
    height, width = generated.image.shape[:2]
    record = {"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": width, "height": height}
    (folder / record["file_name"]).write_bytes(encode_jpeg(generated.image, quality=int(rng.integers(65, 96))))
    return _WrittenImage(
        record,
        [{"image_id": image_id, **annotation} for annotation in generated.annotations],
        [{"image_id": image_id, **detection} for detection in simulate_detections(rng, generated)],
        DatasetStatistics.from_image(generated),
    )


def _write_annotations(
    folder: Path, name: str, seed: int, images: list[_WrittenImage], statistics: DatasetStatistics
) -> None:
    """Writes the keypoint file of a split and, for val, the detector's boxes."""
    records = [record for image in images for record in image.annotations]
    keypoints = {
        "info": {"description": MARK, "split": name, "seed": seed, "statistics": asdict(statistics)},
        "licenses": [],
        "categories": [CATEGORY],
        "images": [image.image for image in images],
        "annotations": [{"id": number, **record} for number, record in enumerate(records, start=1)],
    }
    write_json_atomically(folder / keypoints_file(name), keypoints)
    if name == "val":
        boxes = [record for image in images for record in image.detections]
        write_json_atomically(folder / DETECTIONS_FILE, boxes)


@contextmanager
def _pool(processes: int) -> Iterator[Callable[[Callable[[int], _WrittenImage], range], Iterable[_WrittenImage]]]:
    """Yields an ordered `map` over images, in this process or in several."""
    if processes == 1:
        yield map
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=cv2.setNumThreads, initargs=(1,)) as executor:
        try:
            executor.submit(os.getpid).result()
            spawned = True
        except BrokenProcessPool:
            warnings.warn(
                "cannot spawn processes, so a single one generates all images; scripts need `if __name__ == "
                "'__main__':`, and code from standard input is not supported",
                stacklevel=4,
            )
            spawned = False
        yield partial(executor.map, chunksize=16) if spawned else map


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Yields a folder inside `out` whose content replaces the old dataset at the end of the block, unless it fails."""
    out.mkdir(parents=True, exist_ok=True)
    for leftover in out.glob(f"{_STAGING}*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=_STAGING, dir=out) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        old.mkdir()
        yield new
        # old annotations are removed first and new ones added last, so that annotations always match the images
        for folder in reversed(FOLDERS):
            if (out / folder).exists():
                (out / folder).rename(old / folder)
        for folder in FOLDERS:
            (new / folder).rename(out / folder)


def _check_out_folder(out: Path) -> None:
    """Raises ValueError unless `out` is missing, empty (except for hidden files) or a synthetic dataset."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out}: expected a folder, got a file")
    paths = [path.relative_to(out) for pattern in ("*", "*/*") for path in out.glob(pattern)]
    visible = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    if not visible:
        return
    foreign = sorted(path.as_posix() for path in visible if not is_dataset_path(path.as_posix()))
    if not foreign:
        foreign = [path for path in map(keypoints_file, SPLITS) if not _is_synthetic(out / path)]
    if foreign:
        raise ValueError(
            f"{out}: expected a new folder or a synthetic dataset, but it contains {foreign[0]}; nothing was written. "
            "Choose another folder, or remove this one"
        )


def _is_synthetic(keypoints: Path) -> bool:
    """Returns whether an annotation file belongs to a synthetic dataset."""
    try:
        content = json.loads(keypoints.read_bytes())
    except (OSError, ValueError):
        return False
    info = content.get("info") if isinstance(content, dict) else None
    return isinstance(info, dict) and info.get("description") == MARK
