"""The command `posedy report`: finds what belongs to results, measures, writes the page."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posedy.config import SkeletonConfig
from posedy.data.categories import with_overrides
from posedy.data.coco import GroundTruth
from posedy.data.coco_results import read_results
from posedy.data.tables import load_json
from posedy.evaluation.report.contents import gather
from posedy.evaluation.report.page import render
from posedy.files import read_csv, write_bytes_atomically
from posedy.skeleton import Skeleton


def write_report(
    source: Path,
    out: Path | None = None,
    annotations: Path | None = None,
    images: Path | None = None,
    skeleton: SkeletonConfig | None = None,
) -> Path:
    """Writes the report of a results file, or of what `posedy test` wrote to a folder.

    Args:
        source: a COCO keypoint results file, or a folder with results.json; metrics.json beside it tells the protocol,
            the annotation file and the photos, metrics.csv there or one folder up the training.
        out: of the report; by default report.html beside the results.
        annotations: the truth, in place of what metrics.json says.
        images: the folder of photos, in place of what metrics.json says; without photos there are no pictures, and
            those that are missing bring a warning.
        skeleton: what to take for the keypoints' in place of the annotation file's, such as sigmas of OKS.

    Returns:
        The file written.

    Raises:
        OSError: if a file is missing.
        ValueError: if a file is damaged, or it is not clear what the truth is.
    """
    results_file = source / "results.json" if source.is_dir() else source
    if not results_file.is_file():
        raise FileNotFoundError(
            f"no results at {results_file.absolute()}: give a COCO keypoint results file, or a folder that "
            "`posedy test ... --out FOLDER` wrote"
        )
    # beside another results file metrics.json is about other results
    test_file = results_file.parent / "metrics.json"
    test = _read_test(test_file) if results_file.name == "results.json" else {}
    data = test.get("data", {})
    if images is None and "images" in data:
        images = _found(Path(data["images"]), test_file.parent)
    if annotations is not None:
        truth = GroundTruth.from_coco(annotations)
    elif "annotations" in data:
        annotations = _found(Path(data["annotations"]), test_file.parent)
        if not annotations.exists():
            raise FileNotFoundError(
                f"{test_file}: the annotation file {annotations} is not there{_tried(annotations, test_file.parent)}: "
                "give --annotations FILE"
            )
        truth = _with_category(GroundTruth.from_coco(annotations), data.get("category"), test_file)
    else:
        raise ValueError(f"{results_file}: nothing beside it tells the annotation file: give --annotations FILE")
    truth = replace(truth, category=with_overrides(truth.category, skeleton))
    contents = gather(
        str(test.get("model", results_file.name)),
        _protocol(test, results_file, annotations),
        truth,
        read_results(results_file, truth.num_keypoints),
        photo_of=_photos(truth, images) if images is not None else None,
        training=_read_training(results_file.parent),
    )
    if contents.missing_photos and images is not None:
        where = "" if images.is_dir() else f"; no folder {images}{_tried(images, test_file.parent)}"
        warnings.warn(f"{contents.missing_photos}{where}: give --images FOLDER", stacklevel=2)
    out = out if out is not None else results_file.parent / "report.html"
    write_bytes_atomically(out, render(contents).encode())
    return out


def _read_test(path: Path) -> Mapping[str, Any]:
    """What `posedy test` wrote beside the results, nothing if it did not; what it says about the data is checked."""
    again = "delete it or run posedy test again"
    try:
        content = load_json(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): {again}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold a dictionary, got {_shown(content)}: {again}")
    data = content.get("data", {})
    if not isinstance(data, Mapping):
        raise ValueError(f"{path}: 'data' must be a dictionary of paths, got {_shown(data)}: {again}")
    for name in ("annotations", "images"):
        if name in data and not (isinstance(data[name], str) and data[name]):
            raise ValueError(f"{path}: data.{name} must be a path, got {_shown(data[name])}: {again}")
    return content


def _shown(value: Any) -> str:
    """A value of a JSON file, not longer than a line."""
    return f"{json.dumps(value):.60}"


def _found(path: Path, folder: Path) -> Path:
    """A path that metrics.json holds, where it is: a test wrote it as seen from the working directory it had.

    That is the one of now, or, if the test's folder was given as a relative path too, one of the folders above it. A
    path that is nowhere stays as it is.
    """
    places = (Path(), folder.absolute(), *folder.absolute().parents)
    return next((place / path for place in places if (place / path).exists()), path)


def _tried(path: Path, folder: Path) -> str:
    """Where `_found` looked, for errors."""
    if path.is_absolute():
        return ""
    return f", neither in the working directory {Path.cwd()} nor in {folder.absolute()} and the folders above it"


def _with_category(truth: GroundTruth, category: Any, path: Path) -> GroundTruth:
    """The truth with what the test's configuration said about the keypoints, such as sigmas."""
    if category is None:
        return truth
    own = truth.category
    if not isinstance(category, Mapping) or any(category.get(key) != own[key] for key in ("id", "keypoints")):
        raise ValueError(
            f"{path}: data.category must be the category of {truth.source}, with id {own['id']} and the "
            f"same keypoints, got {_shown(category)}: give --annotations FILE or run posedy test again"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is measured later warns too
            Skeleton.from_coco_category(category)
    except ValueError as error:
        raise ValueError(f"{path}: data.category: {error}; give --annotations FILE or run posedy test again") from error
    return replace(truth, category=category)


def _read_training(folder: Path) -> list[dict[str, str]]:
    """The rows of the training that the test belongs to; what is no training's table is passed over."""
    for run in (folder, folder.parent):
        try:
            if rows := read_csv(run / "metrics.csv"):
                return rows if _is_training(rows, run / "metrics.csv") else []
        except ValueError as error:
            warnings.warn(f"the report leaves the training out: {error}", stacklevel=3)
            return []
    return []


def _is_training(rows: Sequence[Mapping[str, str]], path: Path) -> bool:
    """Whether the rows of a metrics.csv are a training's.

    Raises:
        ValueError: if they are, and a number is none.
    """
    if not {"epoch", "loss"} <= rows[0].keys():
        return False
    for index, row in enumerate(rows, start=1):
        for name in ("epoch", "loss", "AP"):
            text = row.get(name)
            if not text and name != "epoch":  # not measured
                continue
            try:
                float(text or "")
            except ValueError:
                raise ValueError(
                    f"{path}: {name} must be a number in each row, got {text!r} in row {index}; mend or delete the row"
                ) from None
    return True


def _protocol(test: Mapping[str, Any], results: Path, annotations: Path) -> list[tuple[str, str]]:
    rows = [("results", str(results)), ("annotations", str(annotations))]
    if "checkpoint" in test:
        rows.append(("checkpoint", str(test["checkpoint"])))
    protocol = test.get("protocol")
    if isinstance(protocol, Mapping):
        return rows + [(name.replace("_", " "), _words(name, value)) for name, value in protocol.items()]
    if protocol is not None:
        warnings.warn(
            f"{results.parent / 'metrics.json'}: 'protocol' must be a dictionary, got {_shown(protocol)}: the report "
            "says nothing about it",
            stacklevel=3,
        )
    return [*rows, ("rescoring and suppression", "as in the results file")]


def _words(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if name == "input_size" and isinstance(value, list) and len(value) == 2:
        return f"{value[1]}x{value[0]} (height x width)"
    return "off" if value is None else str(value)


def _photos(truth: GroundTruth, images: Path) -> Callable[[Any], Path]:
    """The photo of an image id."""

    def photo_of(image_id: Any) -> Path:
        name = truth.file_names[image_id]
        if not isinstance(name, str) or not name:
            raise ValueError(f"{truth.source}: image {image_id} needs a file_name, got {_shown(name)}")
        return images / name

    return photo_of
