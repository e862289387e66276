"""The command `posedy report`: finds what belongs to results, measures, writes the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from posedy.evaluation.results import read_results
from posedy.evaluation.truth import KeypointTruth
from posedy.files import write_bytes_atomically
from posedy.report.contents import gather
from posedy.report.page import render
from posedy.training.log import read_metrics


def write_report(
    source: Path,
    out: Path | None = None,
    annotations: Path | None = None,
    images: Path | None = None,
    sigmas: Sequence[float] | None = None,
) -> Path:
    """Writes the report of a results file, or of what `posedy test` wrote to a folder.

    Args:
        source: a COCO keypoint results file, or a folder with results.json; metrics.json beside it tells the protocol,
            the annotation file and the photos, metrics.csv there or one folder up the training.
        out: of the report; by default report.html beside the results.
        annotations: the truth, in place of what metrics.json says.
        images: the folder of photos, in place of what metrics.json says; without photos there are no pictures.
        sigmas: of OKS, one for all or one for each keypoint; by default the annotation file's.

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
    test = _read_test(results_file.parent / "metrics.json") if results_file.name == "results.json" else {}
    data = test.get("data", {})
    category = data.get("category") if annotations is None else None
    if annotations is None and "annotations" not in data:
        raise ValueError(f"{results_file}: nothing beside it tells the annotation file: give --annotations FILE")
    annotations = annotations if annotations is not None else Path(data["annotations"])
    if images is None and "images" in data:
        images = Path(data["images"])
    truth = KeypointTruth.from_coco(annotations)
    if category:  # with what the configuration said about the keypoints
        truth = replace(truth, category=category)
    if sigmas is not None and len(sigmas) == 1:
        sigmas = [*sigmas] * truth.num_keypoints
    contents = gather(
        test.get("model", results_file.name),
        _protocol(test, results_file, annotations, sigmas),
        truth,
        read_results(results_file, truth.num_keypoints),
        sigmas=sigmas,
        photo_of=_photos(annotations, images),
        training=_read_training(results_file.parent),
    )
    out = out if out is not None else results_file.parent / "report.html"
    write_bytes_atomically(out, render(contents).encode())
    return out


def _read_test(path: Path) -> Mapping[str, Any]:
    """What `posedy test` wrote beside the results, nothing if it did not."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): delete it or run posedy test again") from error
    return content if isinstance(content, Mapping) else {}


def _read_training(folder: Path) -> list[dict[str, str]]:
    rows = read_metrics(folder) or read_metrics(folder.parent)
    return rows if rows and {"epoch", "loss"} <= rows[0].keys() else []  # else it is no training's


def _protocol(
    test: Mapping[str, Any], results: Path, annotations: Path, sigmas: Sequence[float] | None
) -> list[tuple[str, str]]:
    rows = [("results", str(results)), ("annotations", str(annotations))]
    if "checkpoint" in test:
        rows.append(("checkpoint", str(test["checkpoint"])))
    protocol = test.get("protocol")
    if isinstance(protocol, Mapping):
        rows += [(str(name).replace("_", " "), _words(value)) for name, value in protocol.items()]
    else:
        rows.append(("rescoring and suppression", "as in the results file"))
    return rows + ([("sigmas", ", ".join(f"{sigma:g}" for sigma in sigmas))] if sigmas is not None else [])


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return "x".join(str(item) for item in value)
    return "off" if value is None else str(value)


def _photos(annotations: Path, images: Path | None) -> Any:
    """The photo of an image id, None without photos."""
    if images is None:
        return None
    names = {record["id"]: record.get("file_name") for record in json.loads(annotations.read_bytes())["images"]}

    def photo_of(image_id: Any) -> Path:
        if not names.get(image_id):
            raise ValueError(f"{annotations}: image {image_id} has no file_name, which pictures of persons need")
        return images / names[image_id]

    return photo_of
