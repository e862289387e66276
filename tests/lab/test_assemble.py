"""Networks assembled from the backbone of one and the head of another."""

from pathlib import Path

import pytest
import torch

import posedy
from tools.lab.assemble import assemble, main


@pytest.fixture
def parts() -> tuple[posedy.PoseNet, posedy.PoseNet]:
    torch.manual_seed(1)
    backbone = posedy.create_model("dy_mobilenetv2_035-bneck", num_kernels=2, temperature=1.0)
    head = posedy.create_model(
        "mobilenetv2_100-fpn", codec="unbiased", output="sigmoid", input_size=(64, 96), padding="tensorflow"
    )
    return backbone.eval(), head.eval()


def test_the_backbone_is_equal_and_the_head_where_shapes_agree(parts: tuple[posedy.PoseNet, posedy.PoseNet]) -> None:
    backbone, head = parts
    net, fresh = assemble("dy_mobilenetv2_035-fpn", backbone, head)
    assert (net.codec.name, net.input_size, net.options["output"]) == ("unbiased", (64, 96), "sigmoid")
    crops = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(net.backbone(crops), backbone.backbone(crops))
        assert net(crops).shape == (2, 17, 24, 16)
    assert fresh == [f"laterals.{index}.weight" for index in (1, 2, 3)]
    for name, tensor in net.head.state_dict().items():
        if name not in fresh:
            assert torch.equal(tensor, head.head.state_dict()[name])


def test_other_parts_are_rejected(parts: tuple[posedy.PoseNet, posedy.PoseNet]) -> None:
    backbone, head = parts
    with pytest.raises(ValueError, match="dy_mobilenetv2_050"):
        assemble("dy_mobilenetv2_050-fpn", backbone, head)
    with pytest.raises(ValueError, match="bneck"):
        assemble("dy_mobilenetv2_035-fpn", backbone, backbone)


def test_the_command_writes_a_network(
    parts: tuple[posedy.PoseNet, posedy.PoseNet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("backbone.safetensors", "head.safetensors", "out.safetensors")]
    for net, file in zip(parts, files, strict=False):
        posedy.save_checkpoint(net, file)
    main(["dy_mobilenetv2_035-fpn", "--backbone", files[0], "--head", files[1], "--out", files[2]])
    assert "laterals.3.weight" in capsys.readouterr().out
    assert posedy.load_checkpoint(files[2]).name == "dy_mobilenetv2_035-fpn"
