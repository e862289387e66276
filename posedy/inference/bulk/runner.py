"""The run of one process: its units, from the list of inputs to the file of each."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from posedy.drawing import draw_poses
from posedy.files import atomic_write, named_write_errors, write_bytes_atomically
from posedy.images import encode_jpeg, rgb_to_bgr
from posedy.inference.bulk.formats import FORMATS, ImageResult, as_text
from posedy.inference.bulk.inputs import ERRORS_FILE, ERRORS_FOLDER, InputList, prepare_inputs
from posedy.inference.bulk.pipeline import Image, Job, UnitResult, predict_units
from posedy.inference.bulk.progress import BulkProgress
from posedy.inference.bulk.reading import SourceReader
from posedy.inference.bulk.sources import list_sources
from posedy.inference.estimator import PoseEstimator
from posedy.poses import format_count

_DRAWINGS_FOLDER = "drawings"
_MAX_DRAWING_NAME = 50  # characters, of up to 4 bytes: names of files have at most 255 bytes


def predict_bulk(
    arguments: Iterable[str],
    out: str | Path,
    estimator: PoseEstimator,
    *,
    model: str,
    settings: Mapping[str, Any],
    format: str = "parquet",
    image_column: str | None = None,
    num_drawings: int = 0,
    workers: int = 4,
    rank: int = 0,
    world_size: int = 1,
    report: Callable[[str], None] = print,
) -> None:
    """Predicts the units of this process, and writes `out`/part-00000.parquet and so on.

    A unit whose file exists is left out: the same call resumes, also with another number of processes. Images that
    fail are listed in `out`/errors.jsonl with the reason.

    Args:
        arguments: the inputs, see `list_sources`.
        out: the folder, created if needed.
        estimator: detects the persons and predicts their keypoints.
        model: the name of the model in the results.
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
    run_settings = {"format": format, "model": model, "image column": image_column}
    sources = list_sources(arguments, image_column, out)
    inputs = prepare_inputs(out, sources, run_settings | dict(settings))
    pending = [unit for unit in range(rank, inputs.num_units, world_size) if not _part(out, unit, format).exists()]
    report(
        f"{format_count(inputs.num_images, 'image')} in {format_count(inputs.num_units, 'unit')} of up to "
        f"{inputs.unit_size}; {len(pending)} left for "
        + ("this process" if world_size == 1 else f"process {rank} of {world_size}")
    )
    drawn = {number * inputs.num_images // num_drawings for number in range(num_drawings)}
    progress = BulkProgress(sum(map(inputs.images_in, pending)), report, is_shown=rank == 0)
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="read") as executor:
            jobs = _read_ahead(_start_jobs(inputs, pending, SourceReader(image_column), executor), 2 * workers)
            with closing(predict_units(jobs, estimator, drawn)) as units:
                for unit in units:
                    _write(unit, out, format, part_format.encode(unit.results, estimator.skeleton, model))
                    progress.advance(len(unit.results) + len(unit.errors), unit.num_persons, len(unit.errors))
    finally:
        progress.close()
        missing_units = sum(not _part(out, unit, format).exists() for unit in range(inputs.num_units))
        num_errors = _merge_errors(out)
        if pending:
            report(progress.describe())
        if missing_units:
            report(
                f"{missing_units} of {format_count(inputs.num_units, 'unit')} left: the same command resumes"
                + ("" if world_size == 1 else ", unless another process predicts them")
            )
        else:
            report(f"done: {format_count(inputs.num_units, 'unit')} in {out}/part-*{part_format.suffix}")
        if num_errors:
            report(f"FAILED: {format_count(num_errors, 'image')}, listed in {out / ERRORS_FILE}")


def _part(out: Path, unit: int, format: str) -> Path:
    return out / f"part-{unit:05d}{FORMATS[format].suffix}"


def _start_jobs(
    inputs: InputList, units: Sequence[int], reader: SourceReader, executor: ThreadPoolExecutor
) -> Iterator[Job]:
    """Yields the images of units, with their reading begun."""
    for unit in units:
        for index, source in enumerate(inputs.read_unit(unit)):
            yield Job(unit, unit * inputs.unit_size + index, source.name, executor.submit(reader.read, source))


def _read_ahead(jobs: Iterable[Job], count: int) -> Iterator[Job]:
    """Yields jobs with `count` later ones begun."""
    begun: deque[Job] = deque()
    for job in jobs:
        begun.append(job)
        if len(begun) > count:
            yield begun.popleft()
    yield from begun


def _write(unit: UnitResult, out: Path, format: str, content: bytes) -> None:
    """Writes the drawings and errors of a unit, and then its file, which marks it as done."""
    for number, rgb, result in unit.drawn:
        path = out / _DRAWINGS_FOLDER / f"{number:08d}-{Path(result.text_name).stem[:_MAX_DRAWING_NAME]}.jpg"
        with named_write_errors(path):
            write_bytes_atomically(path, encode_jpeg(rgb_to_bgr(_draw(rgb, result))))
    errors = _part(out / ERRORS_FOLDER, unit.number, "jsonl")
    if unit.errors:
        texts = [(as_text(name), as_text(error)) for name, error in unit.errors]
        lines = [json.dumps({"image": name, "error": error}) + "\n" for name, error in texts]
        with named_write_errors(errors):
            write_bytes_atomically(errors, "".join(lines).encode())
    else:
        errors.unlink(missing_ok=True)  # of an earlier try
    path = _part(out, unit.number, format)
    with named_write_errors(path):
        write_bytes_atomically(path, content)


def _draw(rgb: Image, result: ImageResult) -> Image:
    """Draws the poses of an image on a smaller copy of it."""
    scale, poses = rgb.shape[1] / result.width, result.poses
    keypoints = (poses.keypoints + 0.5) * scale - 0.5
    return draw_poses(rgb, keypoints, poses.scores, poses.skeleton, poses.boxes * scale)


def _merge_errors(out: Path) -> int:
    """Joins the lists of failed images of all units in one file; returns their number.

    If a list appears meanwhile, of a process that ends at the same time, they are joined again.
    """
    folder = out / ERRORS_FOLDER
    while files := sorted(folder.glob("part-*.jsonl")):
        count = 0
        with (
            named_write_errors(out / ERRORS_FILE),
            atomic_write(out / ERRORS_FILE) as temporary,
            temporary.open("wb") as merged,
        ):
            for file in files:
                with suppress(FileNotFoundError):  # another process has predicted its images meanwhile
                    lines = file.read_bytes()
                    count += lines.count(b"\n")
                    merged.write(lines)
        if sorted(folder.glob("part-*.jsonl")) == files:
            return count
    (out / ERRORS_FILE).unlink(missing_ok=True)
    return 0
