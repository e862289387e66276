"""Boxes of images whose EXIF orientation keeps their size: upright pixels, with a warning that names the images."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posedy.inference.predict import predict_images
from posedy.models.pose_net import PoseNet


@pytest.mark.parametrize(("orientation", "is_ambiguous"), [(1, False), (3, True), (8, False)])
def test_orientation_that_keeps_the_size_gives_a_warning(
    net: PoseNet, image: np.ndarray, tmp_path: Path, orientation: int, is_ambiguous: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]  # the boxes file has only the first one
    for path in paths:
        Image.fromarray(image).save(path, exif=exif)
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps([{"file_name": "a.jpg", "bbox": [10, 20, 110, 120], "score": 0.9}]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predict_images(paths, net, tmp_path / "out", boxes_file=file, device="cpu", report=lambda line: None)
    about = [str(warning.message) for warning in caught if "EXIF" in str(warning.message)]
    assert len(about) == is_ambiguous
    if is_ambiguous:
        assert f"{paths[0]} (orientation 3)" in about[0]
        assert "b.jpg" not in about[0]
