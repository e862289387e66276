"""Reading of results and related files, and writing of the HTML report."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posedy.config import SkeletonConfig
from posedy.data.categories import apply_overrides
from posedy.data.coco import GroundTruth
from posedy.data.coco_results import read_results
from posedy.data.file_names import find_image
from posedy.data.tables import load_json
from posedy.evaluation.plausibility import warn_of_doubts
from posedy.evaluation.report.contents import collect_contents
from posedy.evaluation.report.page import render_page
from posedy.files import check_writable, read_csv, write_bytes_atomically
from posedy.skeleton import Skeleton


def write_report(
    source: Path,
    out: Path | None = None,
    annotations: Path | None = None,
    images: Path | None = None,
    skeleton: SkeletonConfig | None = None,
) -> Path:
    """Writes the HTML report of a results file or of an output folder of `posedy test`.

    Args:
        source: a COCO keypoint results file, or a folder with results.json. The protocol, the annotation file and the
            images are read from metrics.json next to it, the training log from metrics.csv there or one or two folders
            up.
        out: path of the report; by default report.html next to the results.
        annotations: the annotation file; by default that of metrics.json.
        images: the image folder; by default that of metrics.json. Without it the report shows no images; a missing
            image causes a warning.
        skeleton: overrides of the annotation file's category, such as OKS sigmas.

    Returns:
        The path of the report.

    Raises:
        OSError: if a file is missing.
        ValueError: if a file is invalid, or the annotation file is unknown.
    """
    results_file = source / "results.json" if source.is_dir() else source
    if not results_file.is_file():
        raise FileNotFoundError(
            f"no results at {results_file.absolute()}: give a COCO keypoint results file, or an output folder of "
            "`posedy test ... --out FOLDER`"
        )
    # metrics.json describes results.json only, not other results files in the folder
    metrics_file = results_file.parent / "metrics.json"
    record = _read_metrics(metrics_file) if results_file.name == "results.json" else {}
    data = record.get("data", {})
    if images is None and "images" in data:
        images = _resolve(Path(data["images"]), metrics_file.parent)
    if annotations is not None:
        gt = GroundTruth.from_coco(annotations)
    elif "annotations" in data:
        annotations = _resolve(Path(data["annotations"]), metrics_file.parent)
        if not annotations.exists():
            raise FileNotFoundError(
                f"{metrics_file}: no annotation file {annotations}"
                f"{_describe_search(annotations, metrics_file.parent)}: give --annotations FILE"
            )
        gt = _replace_category(GroundTruth.from_coco(annotations), data.get("category"), metrics_file)
    else:
        raise ValueError(f"{results_file}: no metrics.json that names the annotation file: give --annotations FILE")
    gt = replace(gt, category=apply_overrides(gt.category, skeleton))
    out = out if out is not None else results_file.parent / "report.html"
    for path in (results_file, metrics_file, annotations, *_training_logs(results_file.parent)):
        if path.exists() and out.exists() and path.samefile(out):
            raise ValueError(f"--out {out} would overwrite {path}: choose another file")
    check_writable(out)
    results = read_results(results_file, gt.num_keypoints)
    contents = collect_contents(
        str(record.get("model", results_file.name)),
        _list_protocol(record, results_file, annotations),
        gt,
        results,
        find_image=_make_find_image(gt, images) if images is not None else None,
        training_log=_read_training_log(results_file.parent),
    )
    warn_of_doubts(gt, results, contents.metrics, str(results_file))
    if contents.missing_images and images is not None:
        hint = "" if images.is_dir() else f"; no folder {images}{_describe_search(images, metrics_file.parent)}"
        warnings.warn(f"{contents.missing_images}{hint}: give --images FOLDER", stacklevel=2)
    write_bytes_atomically(out, render_page(contents).encode())
    return out


def _read_metrics(path: Path) -> Mapping[str, Any]:
    """Reads a metrics.json of `posedy test` and checks its data paths; returns an empty mapping if it is missing."""
    advice = "delete it or run posedy test again"
    try:
        content = load_json(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): {advice}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a dictionary, got {_format_json(content)}: {advice}")
    data = content.get("data", {})
    if not isinstance(data, Mapping):
        raise ValueError(f"{path}: data: expected a dictionary of paths, got {_format_json(data)}: {advice}")
    for name in ("annotations", "images"):
        if name in data and not (isinstance(data[name], str) and data[name]):
            raise ValueError(f"{path}: data.{name}: expected a path, got {_format_json(data[name])}: {advice}")
    return content


def _format_json(value: Any) -> str:
    """Formats a JSON value for error messages, truncated to one line."""
    return f"{json.dumps(value):.60}"


def _resolve(path: Path, folder: Path) -> Path:
    """Resolves a path of metrics.json, which may be relative to the working directory of `posedy test`.

    Tries the current working directory, the folder of metrics.json and its parents. A path that exists in none of them
    is returned unchanged.
    """
    bases = (Path(), folder.absolute(), *folder.absolute().parents)
    return next((base / path for base in bases if (base / path).exists()), path)


def _describe_search(path: Path, folder: Path) -> str:
    """Describes where `_resolve` searched, for error messages."""
    if path.is_absolute():
        return ""
    return f" in the working directory {Path.cwd()}, in {folder.absolute()} or its parent folders"


def _replace_category(gt: GroundTruth, category: Any, path: Path) -> GroundTruth:
    """Replaces the category by that of metrics.json, which contains overrides of the configuration such as sigmas."""
    if category is None:
        return gt
    own = gt.category
    if not isinstance(category, Mapping) or any(category.get(key) != own[key] for key in ("id", "keypoints")):
        raise ValueError(
            f"{path}: data.category: expected id {own['id']} and the keypoints of {gt.source}, got "
            f"{_format_json(category)}: give --annotations FILE or run posedy test again"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the evaluation repeats these warnings
            Skeleton.from_coco_category(category)
    except ValueError as error:
        raise ValueError(f"{path}: data.category: {error}; give --annotations FILE or run posedy test again") from error
    return replace(gt, category=category)


def _read_training_log(folder: Path) -> list[dict[str, str]]:
    """Reads metrics.csv of the training run in the folder or up to two folders up; other tables are ignored."""
    for log in _training_logs(folder):
        try:
            if rows := read_csv(log):
                return rows if _is_training_log(rows, log) else []
        except ValueError as error:
            warnings.warn(f"report without training curves: {error}", stacklevel=3)
            return []
    return []


def _training_logs(folder: Path) -> list[Path]:
    """Returns where the training log may be: that of `posedy test --out RUN/test/BOXES` is two folders up."""
    return [run / "metrics.csv" for run in (folder, *folder.resolve().parents[:2])]


def _is_training_log(rows: Sequence[Mapping[str, str]], path: Path) -> bool:
    """Returns whether the rows of a metrics.csv are a training log.

    Raises:
        ValueError: if they are, and a value is not a number.
    """
    if not {"epoch", "loss"} <= rows[0].keys():
        return False
    for index, row in enumerate(rows, start=1):
        for name in ("epoch", "loss", "AP"):
            text = row.get(name)
            if not text and name != "epoch":  # not evaluated in this epoch
                continue
            try:
                float(text or "")
            except ValueError:
                raise ValueError(
                    f"{path}: row {index}: {name}: expected a number, got {text!r}: correct or delete the row"
                ) from None
    return True


def _list_protocol(record: Mapping[str, Any], results: Path, annotations: Path) -> list[tuple[str, str]]:
    rows = [("results", str(results)), ("annotations", str(annotations))]
    if "checkpoint" in record:
        rows.append(("checkpoint", str(record["checkpoint"])))
    protocol = record.get("protocol")
    if isinstance(protocol, Mapping):
        return rows + [(name.replace("_", " "), _format_setting(name, value)) for name, value in protocol.items()]
    if protocol is not None:
        warnings.warn(
            f"{results.parent / 'metrics.json'}: protocol: expected a dictionary, got {_format_json(protocol)}: "
            "report without protocol",
            stacklevel=3,
        )
    return [*rows, ("rescoring and NMS", "as in the results file")]


def _format_setting(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if name == "input_size" and isinstance(value, list) and len(value) == 2:
        return f"{value[1]}x{value[0]} (height x width)"
    return "off" if value is None else str(value)


def _make_find_image(gt: GroundTruth, images: Path) -> Callable[[Any], Path]:
    """Creates a function that returns the image file of an image id."""

    def find(image_id: Any) -> Path:
        name = gt.file_names[image_id]
        if not isinstance(name, str) or not name:
            raise ValueError(f"{gt.source}: image {image_id}: expected a file_name, got {_format_json(name)}")
        return find_image(images, name)

    return find
