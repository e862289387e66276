import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from posedy.app.service import PoseService

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")


def test_page_has_tabs_and_no_analytics(address: str) -> None:
    config = json.loads(urlopen(f"{address}/config").read())
    assert config["analytics_enabled"] is False
    labels = {component["props"].get("label") for component in config["components"]}
    assert {"Image", "Video", "Camera", "Network", "Person detector", "Example images"} <= labels


def test_the_camera_is_not_flipped(address: str) -> None:
    """Left and right of a flipped person are exchanged."""
    config = json.loads(urlopen(f"{address}/config").read())
    (camera,) = [item["props"] for item in config["components"] if item["props"].get("elem_id") == "camera"]
    assert camera["webcam_options"]["mirror"] is False


def test_the_last_of_several_quick_choices_counts(address: str) -> None:
    config = json.loads(urlopen(f"{address}/config").read())
    name_of = {component["id"]: component["props"].get("elem_id") for component in config["components"]}
    modes = {
        (name_of.get(component), event): dependency["trigger_mode"]
        for dependency in config["dependencies"]
        for component, event in dependency["targets"]
    }
    assert modes["examples", "select"] == modes["image", "upload"] == modes["video", "change"] == "always_last"


def test_several_browsers_may_use_their_cameras(model: str) -> None:
    """A browser has its place among the events until its camera stops."""
    from posedy.app.page import make_page  # gradio is optional

    page = make_page(PoseService((model,), device="cpu"))
    assert [event.concurrency_limit for event in page.fns.values() if event.connection == "stream"] == [None]


def test_a_video_is_stopped_by_its_session_only(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio  # slow import, needed only here

    from posedy.app.page import make_page

    counts, is_seen = [], threading.Event()

    def process_video(self: PoseService, *arguments: Any) -> None:
        report = arguments[-1]
        while True:
            report(len(counts) + 1, None)
            counts.append(len(counts) + 1)
            is_seen.set()
            time.sleep(0.01)

    monkeypatch.setattr(PoseService, "process_video", process_video)
    page = make_page(PoseService((model,), device="cpu"))
    events = {(event.api_name, event.targets[0][1]): event.fn for event in page.fns.values()}
    (process,) = [fn for (name, _), fn in events.items() if name == "process_video"]
    (unload,) = [fn for (_, trigger), fn in events.items() if trigger == "unload"]
    requests = [gradio.Request(session_hash=name) for name in ("one", "other")]
    with ThreadPoolExecutor() as pool:
        job = pool.submit(process, "video.mp4", model, "full-image", 0.2, requests[0], lambda *_, **__: None)
        assert is_seen.wait(60)
        unload(requests[1])
        is_seen.clear()
        assert is_seen.wait(60)  # another session
        unload(requests[0])
        drawing, message, *_ = job.result(60)
    assert drawing is None
    assert message == f"Stopped after {len(counts) + 1} frames"


def test_endpoints_have_names_for_their_parameters(address: str) -> None:
    endpoints = json.loads(urlopen(f"{address}/gradio_api/info").read())["named_endpoints"]
    settings = ["model", "detector", "threshold"]
    for name, first in (("/process_image", "image"), ("/process_video", "video")):
        assert [parameter["parameter_name"] for parameter in endpoints[name]["parameters"]] == [first, *settings]


@pytest.mark.parametrize(
    ("host", "text"),
    [("127.0.0.1", "--port"), ("nosuch.invalid", "127.0.0.1"), ("192.0.2.1", "0.0.0.0"), ("a..b", "--host")],
)
def test_an_address_that_is_not_available_is_named(address: str, served: PoseService, host: str, text: str) -> None:
    from posedy.app.server import serve  # gradio is optional

    port = urlsplit(address).port
    assert port is not None
    with pytest.raises(OSError, match=re.escape(repr(host))) as caught:
        serve(served, host, port)
    assert str(port) in str(caught.value)
    assert text in str(caught.value)


def test_page_returns_drawing_and_keypoints_or_message(address: str, model: str, tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), cv2.resize(coarse, (100, 120)))
    import gradio_client  # slow import, needed only here

    client = gradio_client.Client(address, verbose=False)
    image = gradio_client.handle_file(tmp_path / "image.png")
    drawing, summary, *files, gallery = client.predict(
        image=image, model=model, detector="full-image", threshold=0.2, api_name="/process_image"
    )
    path = drawing["path"] if isinstance(drawing, dict) else drawing
    assert cv2.imread(path).shape == (120, 100, 3)
    assert summary.startswith("1 person")
    assert gallery["selected_index"] is None
    assert [Path(file["value"]).name for file in files] == [
        "image-poses.jpg",
        "image-keypoints.json",
        "image-keypoints.csv",
    ]
    (tmp_path / "notes.txt").write_text("not an image")
    notes = gradio_client.handle_file(tmp_path / "notes.txt")
    drawing, summary, *_ = client.predict(notes, model, "full-image", 0.2, api_name="/process_image")
    assert drawing is None
    assert summary.startswith("**Failed:**")
    assert "notes.txt" in summary
