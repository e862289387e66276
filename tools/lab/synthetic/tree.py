"""Writing a drawn data set as COCO's tree, from many processes, whole or not at all."""

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
from tools.lab.synthetic.layout import CATEGORY, DETECTIONS_FILE, FOLDERS, MARK, SPLITS, keypoints_file, owns
from tools.lab.synthetic.scene import draw_photo
from tools.lab.synthetic.simulated_detector import detect_people
from tools.lab.synthetic.statistics import DrawnStatistics

_STAGING = ".drawing-"
_IMAGES_PER_PROCESS = 300  # fewer are drawn before another process has started
# images; the first image of a split has both
_CROWD_EVERY, _FAR_PEOPLE_EVERY = 12, 9


@dataclass(frozen=True)
class _Drawn:
    """What a process hands back of a photo that it drew and wrote."""

    image: dict[str, Any]
    annotations: list[dict[str, Any]]
    detections: list[dict[str, Any]]
    statistics: DrawnStatistics


def draw_dataset(
    out: Path,
    train: int,
    val: int,
    seed: int,
    progress: bool = False,
    processes: int | None = None,
) -> dict[str, DrawnStatistics]:
    """Draws a data set of people and writes it as COCO's tree.

    `out` gets train2017/, val2017/ and annotations/ with person_keypoints_train2017.json,
    person_keypoints_val2017.json and person_detections_val2017.json (a simulated detector's boxes). The set depends on
    the seed alone, not on the number of processes; a synthetic set that is there already is replaced. Several processes
    are spawned for large sets: a script that calls this needs the usual `if __name__ == "__main__":`, else one draws
    all.

    Args:
        out: folder to write; it may not exist, be empty or hold a drawn set.
        train: number of training photos.
        val: number of validation photos.
        seed: not negative; another seed gives other photos.
        progress: whether to show a bar.
        processes: how many processes draw; by default one per CPU for large sets, else this one.

    Returns:
        What was drawn, under 'train' and 'val'.

    Raises:
        ValueError: if a number is out of range, or `out` holds something that is no synthetic data set.
        OSError: if a file cannot be written.
    """
    out = Path(out)
    for name, value, least in (("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}")
    _refuse_foreign(out)
    if processes is None:
        processes = max(1, min(visible_cpus(), (train + val) // _IMAGES_PER_PROCESS))
    statistics = {}
    with (
        _pool(processes) as map_photos,
        _staging(out) as folder,
        tqdm(total=train + val, desc="drawing", unit="photo", disable=not progress) as bar,
    ):
        for split, (name, count) in enumerate((("train", train), ("val", val))):
            photos = folder / SPLITS[name]
            photos.mkdir()
            drawn = []
            for photo in map_photos(partial(_draw_and_write, photos, seed, split), range(count)):
                drawn.append(photo)
                bar.update()
            statistics[name] = sum((photo.statistics for photo in drawn), DrawnStatistics())
            _write_annotations(folder, name, seed, drawn, statistics[name])
    return statistics


def _draw_and_write(folder: Path, seed: int, split: int, index: int) -> _Drawn:
    """Draws one photo from its own random numbers, so that it is the same in whatever process."""
    rng = np.random.default_rng((seed, split, index))
    photo = draw_photo(rng, with_crowd=index % _CROWD_EVERY == 0, with_far_people=index % _FAR_PEOPLE_EVERY == 0)
    image_id = index + 1
    height, width = photo.picture.shape[:2]
    image = {"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": width, "height": height}
    _, jpeg = cv2.imencode(".jpg", photo.picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(65, 96))])
    (folder / image["file_name"]).write_bytes(jpeg.tobytes())
    return _Drawn(
        image,
        [{"image_id": image_id, **record} for record in photo.annotations],
        [{"image_id": image_id, **record} for record in detect_people(rng, photo)],
        DrawnStatistics.of_photo(photo),
    )


def _write_annotations(folder: Path, name: str, seed: int, drawn: list[_Drawn], statistics: DrawnStatistics) -> None:
    """Writes a split's keypoint file and, for val, the detector's boxes."""
    records = [record for photo in drawn for record in photo.annotations]
    keypoints = {
        "info": {"description": MARK, "split": name, "seed": seed, "statistics": asdict(statistics)},
        "licenses": [],
        "categories": [CATEGORY],
        "images": [photo.image for photo in drawn],
        "annotations": [{"id": number, **record} for number, record in enumerate(records, start=1)],
    }
    write_json_atomically(folder / keypoints_file(name), keypoints)
    if name == "val":
        boxes = [record for photo in drawn for record in photo.detections]
        write_json_atomically(folder / DETECTIONS_FILE, boxes)


@contextmanager
def _pool(processes: int) -> Iterator[Callable[[Callable[[int], _Drawn], range], Iterable[_Drawn]]]:
    """An ordered `map` over photos in this process or in several."""
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
                "no process could be spawned (a script needs `if __name__ == '__main__':` for it, and code from "
                "standard input cannot have it): one process draws all photos",
                stacklevel=4,
            )
            spawned = False
        yield partial(executor.map, chunksize=16) if spawned else map


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder inside `out` whose content takes the place of the old set when the block ends without an error."""
    out.mkdir(parents=True, exist_ok=True)
    for left_over in out.glob(f"{_STAGING}*"):
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(prefix=_STAGING, dir=out) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        old.mkdir()
        yield new
        # The old annotations go first and the new ones come last: they never stand beside photos of another set.
        for folder in reversed(FOLDERS):
            if (out / folder).exists():
                (out / folder).rename(old / folder)
        for folder in FOLDERS:
            (new / folder).rename(out / folder)


def _refuse_foreign(out: Path) -> None:
    """Raises ValueError unless `out` is missing, empty (hidden files aside) or a synthetic set alone."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; name a new folder for the drawn data set")
    found = [path.relative_to(out) for pattern in ("*", "*/*") for path in out.glob(pattern)]
    visible = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    if not visible:
        return
    foreign = sorted(path.as_posix() for path in visible if not owns(path.as_posix()))
    if not foreign:
        foreign = [path for path in map(keypoints_file, SPLITS) if not _is_marked(out / path)]
    if foreign:
        raise ValueError(
            f"{out} is not empty and no synthetic data set ({foreign[0]}): nothing was written; name a "
            "new folder, or remove this one if it is not needed"
        )


def _is_marked(keypoints: Path) -> bool:
    """Whether an annotation file says that its set was drawn."""
    try:
        content = json.loads(keypoints.read_bytes())
    except (OSError, ValueError):
        return False
    info = content.get("info") if isinstance(content, dict) else None
    return isinstance(info, dict) and info.get("description") == MARK
