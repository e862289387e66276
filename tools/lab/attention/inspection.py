"""What the attention of a trained network does: its AP when attention is replaced, and the attention of each layer.

Source: Chen et al., Dynamic Convolution: Attention over Convolution Kernels, CVPR 2020, section 5.2, Tables 3 and 4.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posedy.config import Config
from posedy.evaluation.coco_eval import metrics_to_json
from posedy.evaluation.evaluator import EvalProtocol, EvalResult, load_configured_network
from posedy.evaluation.testing import read_val_set, run_test
from posedy.files import write_bytes_atomically, write_json_atomically
from posedy.models.pose_net import PoseNet
from posedy.prediction import TorchModel
from posedy.system import choose_device
from tools.lab.attention.attention_probe import (
    AGGREGATIONS,
    Aggregation,
    AttentionLayer,
    AttentionStatistics,
    attention_layers,
    recorded_attention,
    replaced_attention,
)
from tools.lab.attention.picture import attention_picture
from tools.lab.attention.report import Metrics, format_aggregations, format_groups, verdict


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found.

    Attributes:
        aggregations: COCO's numbers for each kernel aggregation (Table 3).
        groups: the network's groups of layers, from the crop to the heatmaps.
        rows: for each group whether its attention was on (off is the average), and COCO's numbers (Table 4).
        layers: the attention of each layer, in network order.
        protocol: of all numbers.
    """

    aggregations: dict[Aggregation, Metrics]
    groups: tuple[str, ...]
    rows: list[tuple[tuple[bool, ...], Metrics]]
    layers: list[AttentionStatistics]
    protocol: EvalProtocol

    def to_json(self) -> dict[str, Any]:
        """Everything as plain types."""
        return {
            "protocol": dataclasses.asdict(self.protocol),
            "aggregations": {name: metrics_to_json(metrics) for name, metrics in self.aggregations.items()},
            "groups": {
                "names": list(self.groups),
                "rows": [{"on": list(on), **metrics_to_json(metrics)} for on, metrics in self.rows],
            },
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "verdict": verdict(self.aggregations, self.layers),
        }


def inspect_checkpoint(config: Config, checkpoint: Path, out: Path, device: str = "auto") -> dict[str, Any]:
    """Inspects the attention of a checkpoint on a configuration's val set; prints and writes what it found.

    The folder `out` gets inspection.json and attention.png.

    Args:
        config: the val set, the boxes (`data.boxes`, None for the ground truth's) and the protocol.
        checkpoint: a .pt or .safetensors file of the configured network.
        out: the folder for the results.
        device: name of a device, or "auto".

    Returns:
        The content of inspection.json.

    Raises:
        OSError, ValueError: if a file is missing or does not fit the others, or if the network has no attention to
            inspect.
    """
    chosen = choose_device(device)
    net = load_configured_network(config, checkpoint).to(chosen)
    layers = inspected_layers(net)
    if config.eval.batch_size < 2:
        raise ValueError("attention is shuffled across the images of a batch: eval.batch_size must be at least 2")
    out.mkdir(parents=True, exist_ok=True)
    model = TorchModel(net, chosen)
    persons, boxes, truth = read_val_set(config, model, checkpoint)
    if len(persons if boxes is None else boxes.boxes) < 2:
        raise ValueError("attention is shuffled across images: that takes two boxes or more, there is one")
    found = inspect_layers(layers, lambda: run_test(model, persons, boxes, config, truth))
    record = found.to_json() | {"model": net.name, "checkpoint": checkpoint.name}
    write_json_atomically(out / "inspection.json", record, indent=2)
    write_bytes_atomically(out / "attention.png", attention_picture(found.layers, f"{net.name}, {checkpoint.name}"))
    print(f"wrote {out / 'inspection.json'} and {out / 'attention.png'}")
    return record


def config_beside(checkpoint: Path) -> Path:
    """The config.yaml in the folder of a checkpoint, where training writes it.

    Raises:
        OSError: if there is none, or no checkpoint.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"no checkpoint at {checkpoint.resolve()}")
    config = checkpoint.parent / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(
            f"no config.yaml beside {checkpoint}: name the configuration that it was trained with, --config FILE"
        )
    return config


def inspected_layers(net: PoseNet) -> list[AttentionLayer]:
    """The dynamic layers of a network.

    Raises:
        ValueError: if it has none, or if they have one kernel, which leaves attention nothing to choose.
    """
    layers = attention_layers(net)
    if not layers:
        raise ValueError(
            f"{net.name} has no dynamic convolution and therefore no attention to inspect: use a network whose "
            "backbone or head is called dy_..."
        )
    if single := [layer.name for layer in layers if layer.num_kernels < 2]:
        raise ValueError(
            f"{net.name} has one kernel per layer ({single[0]} for one), which leaves attention nothing to choose: "
            "inspect a network with model.num_kernels of 2 or more"
        )
    return layers


def inspect_layers(layers: Sequence[AttentionLayer], evaluate: Callable[[], EvalResult]) -> Inspection:
    """Measures a network with each replacement of its attention; prints Tables 3 and 4 as soon as they are known.

    Args:
        layers: of the network, what `inspected_layers` gives.
        evaluate: measures the network.
    """
    groups = tuple(dict.fromkeys(layer.group for layer in layers))
    choices = _group_choices(len(groups))
    total = len(AGGREGATIONS) + len(choices) - 2
    print(f"evaluation 1 of {total}: {AGGREGATIONS[0]}", flush=True)
    with recorded_attention(layers) as record:
        outcome = evaluate()
    statistics = record.statistics()
    aggregations: dict[Aggregation, Metrics] = {AGGREGATIONS[0]: outcome.metrics}
    for aggregation in AGGREGATIONS[1:]:
        print(f"evaluation {len(aggregations) + 1} of {total}: {aggregation}", flush=True)
        with replaced_attention(layers, aggregation):
            aggregations[aggregation] = evaluate().metrics
    print(f"\n{format_aggregations(aggregations, outcome.protocol)}\n\n{verdict(aggregations, statistics)}\n")
    # With all groups on or off there is nothing more to measure.
    by_choice = {choices[len(groups) - 1]: aggregations["attention"], choices[-1]: aggregations["average"]}
    for on in choices:
        if on in by_choice:
            continue
        count = len(AGGREGATIONS) + len(by_choice) - 1
        enabled = [group for group, is_on in zip(groups, on, strict=True) if is_on]
        print(f"evaluation {count} of {total}: attention on in {', '.join(enabled)}", flush=True)
        with replaced_attention([layer for layer in layers if layer.group not in enabled], "average"):
            by_choice[on] = evaluate().metrics
    rows = [(on, by_choice[on]) for on in choices]
    print(f"\n{format_groups(groups, rows, outcome.protocol)}\n")
    return Inspection(aggregations, groups, rows, statistics, outcome.protocol)


def _group_choices(count: int) -> list[tuple[bool, ...]]:
    """The rows of Table 4: on from a group on to the deepest, ever more of them, then on only up to a group."""
    from_on = [tuple(i >= first for i in range(count)) for first in reversed(range(count))]
    up_to = [tuple(i < end for i in range(count)) for end in reversed(range(count))]
    return from_on + up_to
