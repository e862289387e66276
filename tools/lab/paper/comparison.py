"""Comparison of the networks' #Param and MAdds with the paper's."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from posedy.codecs import MSRACodec
from posedy.models.complexity import Complexity, measure
from posedy.models.dynamic_conv import DEFAULT_NUM_KERNELS
from posedy.models.factory import create_backbone, create_model
from posedy.models.meta import meta_device
from posedy.models.registry import is_beyond_paper, is_dynamic, list_models
from tools.lab.paper.published import (
    AP_PROTOCOL,
    PUBLISHED_AP,
    TABLE_1,
    TABLE_8,
    TABLE_10_BACKBONES,
    TABLE_10_HEADS,
    Printed,
    PrintedAP,
    PrintedComplexity,
)

PAPER_SIZE = (192, 256)
"""Width and height of the paper's crops."""
_TOLERANCE = 0.01
_IMAGENET_SIZE, _IMAGENET_CLASSES = (224, 224), 1000
# one for each number of output channels
_PAPER_BACKBONES = ("resnet18", "mobilenetv2_100", "mobilenetv3_small")


@dataclass(frozen=True)
class ComparedCount:
    """A count of our network and the value printed in the paper, if there is one."""

    ours: int
    paper: Printed | None

    @property
    def gap(self) -> float | None:
        """Relative difference of our count from the paper's; None if the paper has none."""
        return None if self.paper is None else self.ours / self.paper.value - 1

    @property
    def matches_printed(self) -> bool:
        """Whether our count equals the printed value after rounding to its digits."""
        return self.paper is not None and self.paper.matches(self.ours)

    @property
    def needs_reason(self) -> bool:
        """Whether our count differs from the printed value by more than 1 % and more than rounding."""
        return self.gap is not None and abs(self.gap) > _TOLERANCE and not self.matches_printed


@dataclass(frozen=True)
class Row:
    """A network, backbone or head; `parameters` is None in tables with MAdds only."""

    name: str
    parameters: ComparedCount | None
    madds: ComparedCount

    def counts(self) -> Iterator[ComparedCount]:
        """Yields the counts, #Param first."""
        if self.parameters is not None:
            yield self.parameters
        yield self.madds


@dataclass(frozen=True)
class ModelRow:
    """A pose network: backbone, head, their sum, and the AP in the paper if it has the network."""

    name: str
    backbone: Row
    head: Row
    total: Complexity
    paper_ap: PrintedAP | None

    def counts(self) -> Iterator[ComparedCount]:
        """Yields the counts of backbone and head."""
        yield from self.backbone.counts()
        yield from self.head.counts()


@dataclass(frozen=True)
class Table:
    """A table of the paper with our counts."""

    title: str
    rows: Sequence[Row]


def compare_models(input_size: tuple[int, int] = PAPER_SIZE) -> list[ModelRow]:
    """Compares all networks of `list_models()`; MAdds are compared with the paper at 256x192 only.

    Args:
        input_size: (width, height) of the crops.

    Raises:
        ValueError: if the size is not divisible by 32.
    """
    MSRACodec(input_size)  # raises ValueError for sizes that are not divisible by 32
    at_paper_size = input_size == PAPER_SIZE
    rows = []
    for name in list_models():
        backbone_name, head_name = name.split("-")
        backbone, channels = _measure_backbone(backbone_name, input_size)
        head = _measure_head(head_name, backbone_name.removeprefix("dy_"), input_size)
        printed_backbone = TABLE_10_BACKBONES.get(backbone_name, PrintedComplexity())
        printed_head = TABLE_10_HEADS.get((head_name, channels[-1]), PrintedComplexity())
        rows.append(
            ModelRow(
                name,
                _row(backbone_name, backbone, printed_backbone, at_paper_size),
                _row(head_name, head, printed_head, at_paper_size),
                backbone + head,
                PUBLISHED_AP.get(name),
            )
        )
    return rows


def compare_tables() -> list[Table]:
    """Compares the paper's Tables 1, 8 and 10, and the heads of Table 9, at the paper's input sizes."""
    return [
        Table("Table 1: MobileNetV2 with K kernels, ImageNet at 224x224", list(_table_1())),
        Table(
            "Table 8: ImageNet at 224x224, K = 4",
            [
                _row(name, _measure_backbone(name, _IMAGENET_SIZE, num_classes=_IMAGENET_CLASSES)[0], printed)
                for name, printed in TABLE_8.items()
            ],
        ),
        Table(
            "Table 9: the light-weight head by input channels, printed values from Table 10, K = 4",
            list(_heads("bneck", "dy_bneck")),
        ),
        Table(
            "Table 10: backbones and the deconvolution head, crops of 256x192, K = 4",
            [
                *(
                    _row(name, _measure_backbone(name, PAPER_SIZE)[0], item)
                    for name, item in TABLE_10_BACKBONES.items()
                ),
                *_heads("deconv"),
            ],
        ),
    ]


def _table_1() -> Iterator[Row]:
    for (name, num_kernels), printed in TABLE_1.items():
        label = f"{name}, K = {num_kernels}" if is_dynamic(name) else name
        kernels = num_kernels if is_dynamic(name) else DEFAULT_NUM_KERNELS
        ours, _ = _measure_backbone(name, _IMAGENET_SIZE, kernels, _IMAGENET_CLASSES)
        yield Row(label, None, ComparedCount(ours.madds, printed))


def _heads(*head_names: str) -> Iterator[Row]:
    for backbone_name in _PAPER_BACKBONES:
        _, (*_, channels) = _measure_backbone(backbone_name, PAPER_SIZE)
        for head_name in head_names:
            if (head_name, channels) in TABLE_10_HEADS:
                head = _measure_head(head_name, backbone_name, PAPER_SIZE)
                yield _row(f"{head_name}, {channels} channels", head, TABLE_10_HEADS[head_name, channels])


def models_to_json(rows: Sequence[ModelRow], input_size: tuple[int, int]) -> dict[str, Any]:
    """Converts the result of `compare_models` to JSON types, without values missing in the paper."""
    return {
        "input_size": list(input_size),
        "paper_ap_protocol": AP_PROTOCOL,
        "models": [
            {
                "name": row.name,
                "beyond_paper": is_beyond_paper(row.name),
                "backbone": _row_to_json(row.backbone),
                "head": _row_to_json(row.head),
                "total": asdict(row.total),
            }
            | ({"paper_ap": row.paper_ap.to_json()} if row.paper_ap else {})
            for row in rows
        ],
    }


def tables_to_json(tables: Sequence[Table]) -> dict[str, Any]:
    """Converts the result of `compare_tables` to JSON types."""
    return {"tables": [{"title": table.title, "rows": [_row_to_json(row) for row in table.rows]} for table in tables]}


def list_reasons(counts: Iterable[ComparedCount]) -> list[str]:
    """Returns the unique reasons of differences in the order of first use."""
    reasons = (item.paper.reason for item in counts if item.paper is not None and item.needs_reason)
    return list(dict.fromkeys(reason for reason in reasons if reason is not None))


@cache
def _measure_backbone(
    name: str, input_size: tuple[int, int], num_kernels: int = DEFAULT_NUM_KERNELS, num_classes: int | None = None
) -> tuple[Complexity, tuple[int, ...]]:
    """Returns the complexity of a backbone and the channels of its feature maps."""
    with meta_device():
        backbone = create_backbone(name, num_kernels, num_classes=num_classes)
    width, height = input_size
    return measure(backbone, (3, height, width)), backbone.feature_channels


@cache
def _measure_head(name: str, backbone_name: str, input_size: tuple[int, int]) -> Complexity:
    """Returns the complexity of a head on a backbone."""
    with meta_device():
        network = create_model(f"{backbone_name}-{name}", input_size=input_size)
    width, height = input_size
    return measure(network, (3, height, width)) - _measure_backbone(backbone_name, input_size)[0]


def _row(name: str, ours: Complexity, printed: PrintedComplexity, at_paper_size: bool = True) -> Row:
    return Row(
        name,
        ComparedCount(ours.parameters, printed.parameters),
        ComparedCount(ours.madds, printed.madds if at_paper_size else None),
    )


def _row_to_json(row: Row) -> dict[str, Any]:
    parameters = {} if row.parameters is None else {"parameters": _compared_to_json(row.parameters)}
    return {"name": row.name} | parameters | {"madds": _compared_to_json(row.madds)}


def _compared_to_json(item: ComparedCount) -> dict[str, Any]:
    if item.paper is None:
        return {"ours": item.ours}
    content = {"ours": item.ours, "paper": item.paper.value, "printed": item.paper.text, "gap": item.gap}
    return content | {"has_papers_digits": item.matches_printed, "reason": item.paper.reason}
