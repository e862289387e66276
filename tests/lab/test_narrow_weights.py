from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision

from posedy.models.factory import create_model
from posedy.models.transfer import load_pretrained
from tools.lab.narrowing import main

pytestmark = pytest.mark.slow


def test_narrowed_weights_load_into_static_and_dynamic_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide, out = tmp_path / "wide.pth", tmp_path / "narrow.safetensors"
    torch.save(torchvision.models.mobilenet_v2(width_mult=0.5).state_dict(), wide)
    rng = np.random.default_rng(0)
    for index in range(5):
        coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), cv2.resize(coarse, (160, 120)))
    names = ["--wide", "mobilenetv2_050", "--backbone", "mobilenetv2_035", "--images", str(tmp_path), "--count", "4"]
    main([str(wide), *names, "--out", str(out)])
    assert "variance on 4 images" in capsys.readouterr().out
    for name in ("mobilenetv2_035-bneck", "dy_mobilenetv2_035-bneck"):
        assert "all 312 tensors of the backbone" in load_pretrained(create_model(name), out)
    with pytest.raises(ValueError, match=r"stem\.0\.weight"):
        main([str(wide), "--wide", "mobilenetv2_050", "--backbone", "mobilenetv2_075", *names[4:], "--out", str(out)])
