"""The recipes of docs/how_to/own_parts.md register parts; the diagram of CONTRIBUTING.md is that of import-linter."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import posedy

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.filterwarnings("error")
def test_the_recipes_register_parts(restored_registries: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    text = (REPOSITORY / "docs/how_to/own_parts.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        assert len(block.splitlines()) <= 22
        exec(compile(block, "own_parts.md", "exec"), names)
    assert {"my_net", "dy_my_net"} <= set(posedy.list_backbones())
    assert {"my_head", "dy_my_head"} <= set(posedy.list_heads())
    assert "plain" in posedy.list_codecs()
    assert "left_half" in posedy.list_detectors()
    assert names["net"].codec.name == "plain"
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    assert names["estimator"](image).boxes.tolist() == [[0, 0, 100, 100]]
    net = posedy.create_model("dy_my_net-dy_my_head", width=8)
    assert net(torch.randn(2, 3, 64, 32)).shape == (2, 17, 16, 8)


def test_the_diagram_of_imports_is_the_contract() -> None:
    """The layers of CONTRIBUTING.md are those of import-linter, in the same order."""
    contract = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.search(r"^layers = \[(.*?)\]", contract, re.DOTALL | re.MULTILINE)
    assert layers is not None
    expected = [re.split(r" \| ", layer) for layer in re.findall(r'"(.+)"', layers[1])]
    diagram = (
        (REPOSITORY / "CONTRIBUTING.md")
        .read_text(encoding="utf-8")
        .split("those below it:\n\n```\n")[1]
        .split("```")[0]
    )
    shown = [re.findall(r"\w+", line.partition("  ")[0]) for line in diagram.splitlines()]
    assert [sorted(layer) for layer in shown] == [sorted(layer) for layer in expected]


def test_a_head_of_all_strides_needs_a_backbone_that_has_them(restored_registries: None) -> None:
    @posedy.register_backbone("only_last")
    class OnlyLast(torch.nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 8, 32, 32)

    assert posedy.create_model("only_last-bneck").head is not None
    with pytest.raises(ValueError, match=r"only_last-fpn.*feature_channels.*OnlyLast"):
        posedy.create_model("only_last-fpn")
