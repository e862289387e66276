"""Training and evaluation as functions: `posedy.train` and `posedy.evaluate`."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from posedy.config import Config, load_config
from posedy.data.coco import GroundTruth
from posedy.data.coco_results import read_results
from posedy.evaluation.bootstrap import ConfidenceInterval, bootstrap_intervals, format_intervals
from posedy.evaluation.coco_eval import evaluate_keypoints, format_metrics
from posedy.evaluation.plausibility import warn_of_doubts
from posedy.models.pose_net import PoseNet
from posedy.poses import format_count
from posedy.training import run
from posedy.training.pose_task import PoseTask


@dataclass(frozen=True)
class Metrics:
    """The COCO keypoint metrics by name, such as `metrics["AP"]`; `print(metrics)` prints a table.

    Attributes:
        values: AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm and ARl from 0 to 1; NaN for a size class without persons.
        protocol: description of the evaluation protocol.
        intervals: 95 % confidence intervals by metric; None unless requested.
    """

    values: Mapping[str, float]
    protocol: str
    intervals: Mapping[str, ConfidenceInterval] | None = None

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    def __str__(self) -> str:
        text = format_metrics(dict(self.values), self.protocol)
        if self.intervals is None:
            return text
        return f"{text}\n{format_intervals(self.intervals)}"


def evaluate(
    results: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    annotations: str | os.PathLike[str] | Mapping[str, Any],
    ci: bool = False,
) -> Metrics:
    """Evaluates COCO keypoint results as COCOeval does, on all images of the annotations.

        metrics = posedy.evaluate("results.json", "person_keypoints_val2017.json", ci=True)
        metrics["AP"]

    Args:
        results: a COCO keypoint results file, or its content, such as the return value of `Poses.to_coco`.
        annotations: a COCO keypoint annotation file, or its content.
        ci: whether to compute 95 % confidence intervals by bootstrap over images.

    Raises:
        OSError: if a file cannot be read.
        TypeError: if results or annotations are neither a file nor the content of one, or `ci` is not a boolean.
        ValueError: if a file is invalid, or the files do not belong together.
    """
    if not isinstance(ci, bool):
        raise TypeError(f"ci must be true or false, got {ci!r:.100}")
    if not isinstance(annotations, str | os.PathLike | Mapping):
        raise TypeError(
            "expected annotations to be a COCO file or its content, a dictionary with images, annotations and "
            f"categories, got {type(annotations).__name__}"
        )
    source = dict(annotations) if isinstance(annotations, Mapping) else Path(annotations)
    ground_truth = GroundTruth.from_coco(source)
    if isinstance(results, str | os.PathLike):
        entries, name = read_results(Path(results), ground_truth.num_keypoints), Path(results).name
    else:
        # a mapping would be iterated by its keys, an empty one as no results
        given: list[Any] = [None]
        if isinstance(results, Iterable) and not isinstance(results, Mapping):
            given = list(results)
        if not all(isinstance(entry, Mapping) for entry in given):
            raise TypeError(
                "expected results to be a COCO results file or its content, a list of dictionaries such as the "
                f"return value of Poses.to_coco, got {results!r:.100}"
            )
        entries, name = [dict(entry) for entry in given], "results"
    values = evaluate_keypoints(ground_truth, entries)
    warn_of_doubts(ground_truth, entries, values, name)
    protocol = (
        f"{name}, {format_count(len(entries), 'pose')}, all images ({len(ground_truth.image_ids)}), no rescoring or "
        "suppression, pycocotools"
    )
    return Metrics(values, protocol, bootstrap_intervals(ground_truth, entries) if ci else None)


def train(
    config: str | os.PathLike[str] | Config,
    overrides: Sequence[str] = (),
    *,
    out: str | os.PathLike[str],
    model_class: type[PoseNet] = PoseNet,
) -> dict[str, float]:
    """Trains a network, or resumes the training run in `out`.

        posedy.train("my.yaml", ["train.epochs=20"], out="runs/mine")

    Args:
        config: a YAML file, or a configuration.
        overrides: `section.key=value` strings that override values of the YAML file.
        out: the run folder, see `posedy train --help`.
        model_class: the class of the network: `PoseNet`, or a subclass that overrides `forward`.

    Returns:
        COCO's metrics of the last epoch on the validation set.

    Raises:
        TypeError: if the configuration is neither a file nor a `Config`.
        OSError, ValueError: if the configuration, the data or an existing run are invalid.
    """
    if isinstance(config, Config):
        if overrides:
            raise ValueError("overrides require a YAML file: set the values in the configuration instead")
    elif not isinstance(config, str | os.PathLike):
        raise TypeError(f"expected a YAML file or a posedy.config.Config, got {config!r:.100}")
    else:
        config = load_config(Path(config), overrides)
    return run.train(config, Path(out), make_task=partial(PoseTask, model_class=model_class))
