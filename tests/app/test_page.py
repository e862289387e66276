import json
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from posedy.app.service import WHOLE

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")


def test_the_page_is_served_and_asks_nobody_outside(address: str) -> None:
    config = json.loads(urlopen(f"{address}/config").read())
    assert config["analytics_enabled"] is False
    labels = {component["props"].get("label") for component in config["components"]}
    assert {"Photo", "Video", "Camera", "Model", "Persons"} <= labels


def test_a_photo_comes_back_drawn_with_its_keypoints(address: str, model: str, tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), cv2.resize(coarse, (100, 120)))
    import gradio_client  # heavy, and only needed here

    client = gradio_client.Client(address, verbose=False)
    photo = gradio_client.handle_file(tmp_path / "photo.png")
    drawn, words, button = client.predict(photo, model, WHOLE, 0.2, api_name="/see_photo")
    path = drawn["path"] if isinstance(drawn, dict) else drawn
    assert cv2.imread(path).shape == (120, 100, 3)
    assert words.startswith("1 person")
    assert button is not None
    (tmp_path / "notes.txt").write_text("no picture")
    notes = gradio_client.handle_file(tmp_path / "notes.txt")
    drawn, words, _ = client.predict(notes, model, WHOLE, 0.2, api_name="/see_photo")
    assert drawn is None
    assert words.startswith("**Not done:**")
    assert "notes.txt" in words
