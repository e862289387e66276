"""Inspection of a trained network's attention: AP with replaced attention, and attention statistics of each layer.

Source: Chen et al., Dynamic Convolution: Attention over Convolution Kernels, CVPR 2020, section 5.2, Tables 3 and 4.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from posedy.config import ClassifierConfig, Config
from posedy.data.image_folder import LabeledImages
from posedy.evaluation.classifier_eval import ClassifierTest
from posedy.evaluation.coco_eval import metrics_to_json
from posedy.evaluation.tested_network import with_network
from posedy.evaluation.testing import read_val_set, run_evaluation
from posedy.files import write_bytes_atomically, write_json_atomically
from posedy.models.classifier import Classifier
from posedy.models.network_file import Network
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import load_checkpoint, load_classifier
from posedy.prediction import TorchModel
from posedy.system import choose_device, default_num_workers
from posedy.training.task import Evaluation
from tools.lab.attention.attention_probe import (
    AGGREGATIONS,
    Aggregation,
    AttentionLayer,
    AttentionStatistics,
    attention_layers,
    record_attention,
    replace_attention,
)
from tools.lab.attention.plot import plot_attention
from tools.lab.attention.report import Metrics, format_aggregations, format_groups, verdict

Evaluate = Callable[[], Evaluation]


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result of an inspection.

    Attributes:
        aggregations: metrics of each kernel aggregation (Table 3).
        groups: the network's groups of layers, from the input to the output.
        rows: for each group whether its attention was on (off is the average), and the metrics (Table 4).
        layers: the attention statistics of each layer, in network order.
        protocol: evaluation protocol of all metrics.
    """

    aggregations: dict[Aggregation, Metrics]
    groups: tuple[str, ...]
    rows: list[tuple[tuple[bool, ...], Metrics]]
    layers: list[AttentionStatistics]
    protocol: str

    def to_json(self) -> dict[str, Any]:
        """Returns the content of inspection.json, without the names of the model and the checkpoint."""
        return {
            "protocol": self.protocol,
            "aggregations": {name: metrics_to_json(metrics) for name, metrics in self.aggregations.items()},
            "groups": {
                "names": list(self.groups),
                "rows": [{"on": list(on), **metrics_to_json(metrics)} for on, metrics in self.rows],
            },
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "verdict": verdict(self.aggregations, self.layers),
        }


def inspect_checkpoint(
    config: Config | ClassifierConfig, checkpoint: Path, out: Path, device: str = "auto"
) -> dict[str, Any]:
    """Inspects the attention of a checkpoint on the validation set; prints and writes the result.

    Writes inspection.json and attention.png to the folder `out`.

    Args:
        config: defines the validation set, the boxes of persons (`data.boxes`, None for ground truth) and the protocol.
        checkpoint: a file of a network or a classifier.
        out: output folder.
        device: name of a device, or "auto".

    Returns:
        The content of inspection.json.

    Raises:
        OSError, ValueError: if a file is missing or inconsistent with the others, or if the network has no attention
            over at least two kernels.
    """
    chosen = choose_device(device)
    net: Network
    if isinstance(config, ClassifierConfig):
        net = load_classifier(checkpoint).to(chosen)
    else:
        net = load_checkpoint(checkpoint).to(chosen)
        config, unused = with_network(config, net, checkpoint)
        if unused:
            print(unused)
    layers = dynamic_layers(net)
    if config.eval.batch_size < 2:
        raise ValueError(
            f"shuffling attention across images: eval.batch_size must be at least 2, got {config.eval.batch_size}"
        )
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(net, Classifier):
        assert isinstance(config, ClassifierConfig)
        evaluate = _classifier_evaluation(config, net, checkpoint, chosen)
    else:
        assert isinstance(config, Config)
        evaluate = _pose_evaluation(config, net, checkpoint, chosen)
    inspection = inspect_attention(layers, evaluate)
    record = inspection.to_json() | {"model": net.name, "checkpoint": checkpoint.name}
    write_json_atomically(out / "inspection.json", record, indent=2)
    write_bytes_atomically(out / "attention.png", plot_attention(inspection.layers, f"{net.name}, {checkpoint.name}"))
    print(f"wrote {out / 'inspection.json'} and {out / 'attention.png'}")
    return record


def _pose_evaluation(config: Config, net: PoseNet, checkpoint: Path, device: torch.device) -> Evaluate:
    model = TorchModel(net, device)
    persons, boxes, gt = read_val_set(config, model, checkpoint)
    if (count := len(persons if boxes is None else boxes.boxes)) < 2:
        raise ValueError(f"shuffling attention across images needs at least 2 boxes, got {count}")

    def evaluate() -> Evaluation:
        result = run_evaluation(model, persons, boxes, config, gt)
        return Evaluation(result.metrics, str(result.protocol))

    return evaluate


def _classifier_evaluation(
    config: ClassifierConfig, net: Classifier, checkpoint: Path, device: torch.device
) -> Evaluate:
    images = LabeledImages.read(config.data.root, config.data.val_folder).with_classes(net.classes, str(checkpoint))
    images = images.shuffled()  # attention is shuffled within batches, which would be of one class
    accelerator = Accelerator(cpu=device.type == "cpu")
    test = ClassifierTest(images, config.model.input_size, config.eval, accelerator, default_num_workers())
    return lambda: Evaluation(test.evaluate(net), test.protocol)


def find_config(checkpoint: Path) -> Path:
    """Returns the config.yaml in the folder of a checkpoint, where training writes it.

    Raises:
        OSError: if it or the checkpoint does not exist.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"no checkpoint at {checkpoint.resolve()}")
    config = checkpoint.parent / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(
            f"no config.yaml in the folder of {checkpoint}: pass its training configuration with --config FILE"
        )
    return config


def dynamic_layers(net: Network) -> list[AttentionLayer]:
    """Returns the dynamic layers of a network.

    Raises:
        ValueError: if it has none, or if they have one kernel.
    """
    layers = attention_layers(net)
    if not layers:
        raise ValueError(
            f"{net.name} has no dynamic convolution and no attention to inspect: use a network whose backbone or head "
            "starts with dy_"
        )
    if single := [layer.name for layer in layers if layer.num_kernels < 2]:
        raise ValueError(
            f"{net.name} has one kernel per layer (for example {single[0]}), so attention is constant: use a network "
            "with model.num_kernels of at least 2"
        )
    return layers


def inspect_attention(layers: Sequence[AttentionLayer], evaluate: Evaluate) -> Inspection:
    """Evaluates a network with each replacement of its attention; prints Tables 3 and 4 as soon as they are complete.

    Args:
        layers: the `dynamic_layers` of the network.
        evaluate: evaluates the network.
    """
    groups = tuple(dict.fromkeys(layer.group for layer in layers))
    choices = _group_choices(len(groups))
    total = len(AGGREGATIONS) + len(choices) - 2
    print(f"evaluation 1 of {total}: {AGGREGATIONS[0]}", flush=True)
    with record_attention(layers) as record:
        result = evaluate()
    statistics = record.statistics()
    aggregations: dict[Aggregation, Metrics] = {AGGREGATIONS[0]: result.metrics}
    for aggregation in AGGREGATIONS[1:]:
        print(f"evaluation {len(aggregations) + 1} of {total}: {aggregation}", flush=True)
        with replace_attention(layers, aggregation):
            aggregations[aggregation] = evaluate().metrics
    print(f"\n{format_aggregations(aggregations, result.protocol)}\n\n{verdict(aggregations, statistics)}\n")
    # all groups on or off equals an aggregation that has been evaluated already
    by_choice = {choices[len(groups) - 1]: aggregations["attention"], choices[-1]: aggregations["average"]}
    for on in choices:
        if on in by_choice:
            continue
        count = len(AGGREGATIONS) + len(by_choice) - 1
        enabled = [group for group, is_on in zip(groups, on, strict=True) if is_on]
        print(f"evaluation {count} of {total}: attention on in {', '.join(enabled)}", flush=True)
        with replace_attention([layer for layer in layers if layer.group not in enabled], "average"):
            by_choice[on] = evaluate().metrics
    rows = [(on, by_choice[on]) for on in choices]
    print(f"\n{format_groups(groups, rows, result.protocol)}\n")
    return Inspection(aggregations, groups, rows, statistics, result.protocol)


def _group_choices(count: int) -> list[tuple[bool, ...]]:
    """Returns the rows of Table 4: attention on in the last n groups, n ascending, then in the first n, descending."""
    deepest = [tuple(i >= first for i in range(count)) for first in reversed(range(count))]
    first_groups = [tuple(i < end for i in range(count)) for end in reversed(range(count))]
    return deepest + first_groups
