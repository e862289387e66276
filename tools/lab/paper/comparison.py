"""Our networks' #Param and MAdds beside those that the paper prints."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch

from posedy.codecs import MSRACodec
from posedy.models.complexity import Complexity, measure
from posedy.models.registry import (
    DEFAULT_NUM_KERNELS,
    create_backbone,
    create_model,
    is_beyond_paper,
    is_dynamic,
    list_models,
)
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
# one of each number of channels
_PAPER_BACKBONES = ("resnet18", "mobilenetv2_100", "mobilenetv3_small")


@dataclass(frozen=True)
class Compared:
    """A count of ours and the paper's number, if it has one."""

    ours: int
    paper: Printed | None

    @property
    def gap(self) -> float | None:
        """The relative difference of ours to the paper's number; None without one."""
        return None if self.paper is None else self.ours / self.paper.value - 1

    @property
    def has_papers_digits(self) -> bool:
        """Whether ours is printed the same."""
        return self.paper is not None and self.paper.has_digits_of(self.ours)

    @property
    def needs_reason(self) -> bool:
        """Whether ours is printed differently and more than 1 % away."""
        return self.gap is not None and abs(self.gap) > _TOLERANCE and not self.has_papers_digits


@dataclass(frozen=True)
class Row:
    """A network or a part of one; `parameters` is None in tables that have MAdds only."""

    name: str
    parameters: Compared | None
    madds: Compared

    def compared(self) -> Iterator[Compared]:
        """The numbers, #Param first."""
        if self.parameters is not None:
            yield self.parameters
        yield self.madds


@dataclass(frozen=True)
class ModelRow:
    """A pose network: its parts, their sum, and the paper's AP where it has the network."""

    name: str
    backbone: Row
    head: Row
    total: Complexity
    paper_ap: PrintedAP | None

    def compared(self) -> Iterator[Compared]:
        """The four numbers of the parts."""
        yield from self.backbone.compared()
        yield from self.head.compared()


@dataclass(frozen=True)
class Table:
    """One of the paper's tables with our numbers."""

    title: str
    rows: Sequence[Row]


def compare_models(input_size: tuple[int, int] = PAPER_SIZE) -> list[ModelRow]:
    """All networks of `list_models()`; the paper's MAdds are compared at its 256x192 only.

    Args:
        input_size: (width, height) of the crops.

    Raises:
        ValueError: if the size does not divide by 32.
    """
    MSRACodec(input_size)  # refuses sizes that do not divide by 32
    at_papers_size = input_size == PAPER_SIZE
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
                _row(backbone_name, backbone, printed_backbone, at_papers_size),
                _row(head_name, head, printed_head, at_papers_size),
                backbone + head,
                PUBLISHED_AP.get(name),
            )
        )
    return rows


def compare_tables() -> list[Table]:
    """The paper's Tables 1, 8 and 10, and Table 9 as the heads it describes, at the paper's sizes."""
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
            "Table 9: the light-weight head by the channels of its input, numbers as in Table 10, K = 4",
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
        yield Row(label, None, Compared(ours.madds, printed))


def _heads(*head_names: str) -> Iterator[Row]:
    for backbone_name in _PAPER_BACKBONES:
        _, (*_, channels) = _measure_backbone(backbone_name, PAPER_SIZE)
        for head_name in head_names:
            if (head_name, channels) in TABLE_10_HEADS:
                head = _measure_head(head_name, backbone_name, PAPER_SIZE)
                yield _row(f"{head_name}, {channels} channels", head, TABLE_10_HEADS[head_name, channels])


def models_to_json(rows: Sequence[ModelRow], input_size: tuple[int, int]) -> dict[str, Any]:
    """What `compare_models` found, for a file; numbers that the paper does not have are left out."""
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
    """What `compare_tables` found, for a file."""
    return {"tables": [{"title": table.title, "rows": [_row_to_json(row) for row in table.rows]} for table in tables]}


def reasons(compared: Iterable[Compared]) -> list[str]:
    """The reasons of the numbers that need one, each once, in the order of their first use."""
    found = (item.paper.reason for item in compared if item.paper is not None and item.needs_reason)
    return list(dict.fromkeys(reason for reason in found if reason is not None))


@cache
def _measure_backbone(
    name: str, input_size: tuple[int, int], num_kernels: int = DEFAULT_NUM_KERNELS, num_classes: int | None = None
) -> tuple[Complexity, tuple[int, ...]]:
    """A backbone, and the channels of its maps."""
    with torch.device("meta"):
        backbone = create_backbone(name, num_kernels, num_classes=num_classes)
    width, height = input_size
    return measure(backbone, (3, height, width)), backbone.feature_channels


@cache
def _measure_head(name: str, backbone_name: str, input_size: tuple[int, int]) -> Complexity:
    """What a head adds to a backbone."""
    with torch.device("meta"):
        network = create_model(f"{backbone_name}-{name}", input_size=input_size)
    width, height = input_size
    return measure(network, (3, height, width)) - _measure_backbone(backbone_name, input_size)[0]


def _row(name: str, ours: Complexity, printed: PrintedComplexity, at_papers_size: bool = True) -> Row:
    return Row(
        name,
        Compared(ours.parameters, printed.parameters),
        Compared(ours.madds, printed.madds if at_papers_size else None),
    )


def _row_to_json(row: Row) -> dict[str, Any]:
    parameters = {} if row.parameters is None else {"parameters": _compared_to_json(row.parameters)}
    return {"name": row.name} | parameters | {"madds": _compared_to_json(row.madds)}


def _compared_to_json(item: Compared) -> dict[str, Any]:
    if item.paper is None:
        return {"ours": item.ours}
    numbers = {"ours": item.ours, "paper": item.paper.value, "printed": item.paper.text, "gap": item.gap}
    return numbers | {"has_papers_digits": item.has_papers_digits, "reason": item.paper.reason}
