"""The run of one process: its units, from reading to the file of each."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from posedy.drawing import draw_poses
from posedy.files import named_write_errors, read_bytes, write_bytes_atomically
from posedy.images import rgb_to_bgr
from posedy.inference.bulk.formats import FORMATS, ImageResult
from posedy.inference.bulk.inputs import InputList, prepare_inputs
from posedy.inference.bulk.progress import BulkProgress
from posedy.inference.bulk.sources import ImageSource, SourceReader, list_sources
from posedy.inference.crop_batch import check_sides
from posedy.inference.detectors import Detections
from posedy.inference.estimator import PoseEstimator
from posedy.inference.image_groups import read_groups
from posedy.inference.predict import encode_jpeg
from posedy.inference.threads import Prefetcher
from posedy.poses import count_persons, format_count

ERRORS_FILE = "errors.jsonl"
_ERRORS_FOLDER, _DRAWINGS_FOLDER = "errors", "drawings"
_DRAWING_SIDE = 640

Image = NDArray[np.uint8]


@dataclass
class BulkReport:
    """What a process has done.

    Attributes:
        num_images: number of images that it predicted.
        num_persons: number of persons on them.
        num_failed: number of images that it could not predict.
        missing_units: number of units without a file, which other processes predict.
    """

    num_images: int = 0
    num_persons: int = 0
    num_failed: int = 0
    missing_units: int = 0


class _Job(NamedTuple):
    """An image that is being read."""

    unit: int
    number: int  # in the list of inputs
    source: ImageSource
    image: "Future[Image]"


@dataclass
class _Unit:
    """The results of a unit so far."""

    number: int
    results: list[ImageResult] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    drawings: list[tuple[Path, Image, ImageResult]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.results) + len(self.errors)


def predict_bulk(
    arguments: Iterable[str],
    out: str | Path,
    estimator: PoseEstimator,
    *,
    settings: Mapping[str, Any],
    format: str = "parquet",
    image_column: str | None = None,
    num_drawings: int = 0,
    workers: int = 4,
    rank: int = 0,
    world_size: int = 1,
    report: Callable[[str], None] = print,
) -> BulkReport:
    """Predicts the units of this process, and writes `out`/part-00000.parquet and so on.

    A unit whose file exists is left out: the same call resumes, also with another number of processes. Images that
    fail are listed in `out`/errors.jsonl with the reason.

    Args:
        arguments: the inputs, see `list_sources`.
        out: the folder, created if needed.
        estimator: detects the persons and predicts their keypoints.
        settings: what determines the results besides the inputs; a resumed run must have the same.
        format: a name of `FORMATS`.
        image_column: the column of Parquet files with images; None finds it.
        num_drawings: number of images, evenly over the inputs, of which `out`/drawings gets a small drawing.
        workers: number of threads that read images.
        rank: the number of this process, which predicts every `world_size`-th unit.
        world_size: the number of processes.
        report: called with lines of text.

    Raises:
        OSError: if inputs cannot be listed or results cannot be written; finished units stay.
        ValueError: if there are no images, or the folder has results of other inputs or settings.
    """
    out, part_format = Path(out), FORMATS[format]
    part_format.check_installed()
    sources = list_sources(arguments, image_column, out)
    inputs = prepare_inputs(out, sources, {"format": format} | dict(settings))
    pending = [unit for unit in range(rank, inputs.num_units, world_size) if not _part(out, unit, format).exists()]
    report(
        f"{format_count(inputs.num_images, 'image')} in {format_count(inputs.num_units, 'unit')} of up to "
        f"{inputs.unit_size}; {len(pending)} left for "
        + ("this process" if world_size == 1 else f"process {rank} of {world_size}")
    )
    drawn = {number * inputs.num_images // num_drawings for number in range(num_drawings)}
    result = BulkReport()
    progress = BulkProgress(sum(map(inputs.images_in, pending)), report, is_shown=rank == 0)
    reader = SourceReader(image_column)
    executor = ThreadPoolExecutor(workers, thread_name_prefix="read")
    jobs = _read_ahead(_jobs(inputs, pending, reader, executor), 2 * workers)
    detected = Prefetcher(_detect(jobs, estimator), 1)
    try:
        for unit in _predict(detected, estimator, inputs, drawn, out):
            progress.advance(len(unit), sum(len(each.poses) for each in unit.results), len(unit.errors))
            _write(unit, out, format, part_format.encode(unit.results, estimator.skeleton, estimator.name))
            result.num_images += len(unit.results)
            result.num_persons += sum(len(each.poses) for each in unit.results)
            result.num_failed += len(unit.errors)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        detected.close()
        progress.close()
        result.missing_units = sum(not _part(out, unit, format).exists() for unit in range(inputs.num_units))
        num_errors = _merge_errors(out)
        if pending:
            report(
                f"{count_persons(result.num_persons)} on {format_count(result.num_images, 'image')} in "
                f"{progress.seconds:.1f} s: {progress.describe_rate()}"
            )
        if result.missing_units:
            report(
                f"{result.missing_units} of {format_count(inputs.num_units, 'unit')} left: the same command resumes"
                + ("" if world_size == 1 else ", unless another process predicts them")
            )
        else:
            report(f"all {format_count(inputs.num_units, 'unit')} predicted: {out}/part-*{part_format.suffix}")
        if num_errors:
            report(f"FAILED: {format_count(num_errors, 'image')}, listed in {out / ERRORS_FILE}")
    return result


def _part(out: Path, unit: int, format: str) -> Path:
    return out / f"part-{unit:05d}{FORMATS[format].suffix}"


def _jobs(
    inputs: InputList, units: Sequence[int], reader: SourceReader, executor: ThreadPoolExecutor
) -> Iterator[_Job]:
    """Yields the images of units, with their reading begun."""
    for unit in units:
        for index, source in enumerate(inputs.read_unit(unit)):
            yield _Job(unit, unit * inputs.unit_size + index, source, executor.submit(_read, reader, source))


def _read(reader: SourceReader, source: ImageSource) -> Image:
    rgb = reader.read(source)
    check_sides(rgb, source.name)
    return rgb


def _read_ahead(jobs: Iterator[_Job], count: int) -> Iterator[_Job]:
    """Yields jobs with `count` later ones begun."""
    begun: deque[_Job] = deque()
    for job in jobs:
        begun.append(job)
        if len(begun) > count:
            yield begun.popleft()
    yield from begun


_Detected = list[tuple[_Job, Image | Exception, Detections | Exception | None]]


def _detect(jobs: Iterator[_Job], estimator: PoseEstimator) -> Iterator[_Detected]:
    """Detects persons in groups of images of one unit: yields jobs with their images and boxes, or errors."""
    for _, in_unit in groupby(jobs, key=attrgetter("unit")):
        for group in read_groups(in_unit, lambda job: job.image.result()):
            images = [rgb_to_bgr(rgb) for _, rgb in group if not isinstance(rgb, Exception)]
            found = iter(estimator.detect_many(images) if images else [])
            yield [(job, rgb, None if isinstance(rgb, Exception) else next(found)) for job, rgb in group]


def _predict(
    detected: Iterable[_Detected], estimator: PoseEstimator, inputs: InputList, drawn: set[int], out: Path
) -> Iterator[_Unit]:
    """Predicts keypoints in batches over the images of a unit; yields each unit when it is complete."""
    batch, unit = estimator.new_batch(), None
    for group in detected:
        for job, rgb, found in group:
            if unit is None:
                unit = _Unit(job.unit)
            error = rgb if isinstance(rgb, Exception) else found
            if isinstance(rgb, Exception) or isinstance(found, Exception) or found is None:
                unit.errors.append({"image": job.source.name, "error": str(error)})
            else:
                height, width = rgb.shape[:2]
                result = ImageResult(job.source.name, width, height, batch.add(rgb, *found))
                unit.results.append(result)
                if job.number in drawn:
                    path = out / _DRAWINGS_FOLDER / f"{job.number:08d}-{Path(result.text_name).stem}.jpg"
                    unit.drawings.append((path, _shrink(rgb), result))
        if unit is not None and len(unit) == inputs.images_in(unit.number):
            batch.flush()
            yield unit
            unit = None


def _shrink(rgb: Image) -> Image:
    """Returns a copy of an image with at most 640 pixels a side."""
    scale = min(1.0, _DRAWING_SIDE / max(rgb.shape[:2]))
    size = [max(1, round(side * scale)) for side in rgb.shape[1::-1]]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _write(unit: _Unit, out: Path, format: str, content: bytes) -> None:
    """Writes the drawings and errors of a unit, and then its file, which marks it as done."""
    for path, rgb, result in unit.drawings:
        scale = rgb.shape[1] / result.width
        poses = result.poses
        points = (poses.keypoints + 0.5) * scale - 0.5
        drawing = draw_poses(rgb, points, poses.scores, poses.skeleton, poses.boxes * scale)
        with named_write_errors(path):
            write_bytes_atomically(path, encode_jpeg(rgb_to_bgr(drawing)))
    errors = _part(out / _ERRORS_FOLDER, unit.number, "jsonl")
    if unit.errors:
        with named_write_errors(errors):
            write_bytes_atomically(errors, "".join(json.dumps(error) + "\n" for error in unit.errors).encode())
    else:
        errors.unlink(missing_ok=True)  # of an earlier try
    path = _part(out, unit.number, format)
    with named_write_errors(path):
        write_bytes_atomically(path, content)


def _merge_errors(out: Path) -> int:
    """Joins the lists of failed images of all units in one file; returns their number.

    If a list appears meanwhile, of a process that ends at the same time, they are joined again.
    """
    folder = out / _ERRORS_FOLDER
    while files := sorted(folder.glob("part-*.jsonl")):
        lines = b"".join(map(read_bytes, files))
        with named_write_errors(out / ERRORS_FILE):
            write_bytes_atomically(out / ERRORS_FILE, lines)
        if sorted(folder.glob("part-*.jsonl")) == files:
            return lines.count(b"\n")
    (out / ERRORS_FILE).unlink(missing_ok=True)
    return 0
