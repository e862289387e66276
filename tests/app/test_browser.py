"""The page in a headless browser; POSEDY_SCREENSHOTS=FOLDER saves screenshots."""

import json
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posedy.inference.detectors import PersonDetector
from posedy.inference.video_io import VideoWriter
from posedy.models.pretrained import DEFAULT
from tools.lab.synthetic.video import generate_video

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed"),
]
IMAGE = Path(__file__).parents[2] / "data/coco_mini/val2017/000000085772.jpg"
CAMERA_SIZE = (640, 480)


@pytest.fixture(scope="module")
def model() -> str:
    """The pretrained network, whose keypoints are confident enough to be drawn."""
    return DEFAULT


@pytest.fixture(scope="module")
def camera_frame() -> NDArray[np.uint8]:
    """The image that the browser's camera sees: IMAGE on gray."""
    image = cv2.imread(str(IMAGE))
    scale = min(CAMERA_SIZE[0] / image.shape[1], CAMERA_SIZE[1] / image.shape[0])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    frame = np.full((*CAMERA_SIZE[::-1], 3), 114, np.uint8)
    frame[: image.shape[0], : image.shape[1]] = image
    return frame


@pytest.fixture
def page(address: str, camera_frame: NDArray[np.uint8], tmp_path: Path) -> Iterator[Any]:
    """The opened page; afterwards checks that it requested nothing from other servers."""
    video = tmp_path / "camera.y4m"
    planes = cv2.cvtColor(camera_frame, cv2.COLOR_BGR2YUV_I420).tobytes()
    header = f"YUV4MPEG2 W{CAMERA_SIZE[0]} H{CAMERA_SIZE[1]} F10:1 Ip A1:1 C420mpeg2\n".encode()
    video.write_bytes(header + 10 * (b"FRAME\n" + planes))
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    camera.append(f"--use-file-for-fake-video-capture={video}")
    requested: list[str] = []
    from playwright.sync_api import sync_playwright  # slow import, needed only here

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, permissions=["camera"])
        opened = context.new_page()
        opened.set_default_timeout(60_000)
        opened.on("request", lambda request: requested.append(request.url))
        opened.goto(address)
        opened.get_by_role("tab", name="Image").wait_for()
        yield opened
        browser.close()
    hosts = {urlsplit(url).hostname for url in requested if url.startswith("http")}
    assert hosts == {"127.0.0.1"}


def save_screenshot(page: Any, name: str) -> None:
    folder = os.environ.get("POSEDY_SCREENSHOTS")
    if folder is not None:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_the_detector_finds_the_person_of_an_image(page: Any) -> None:
    page.locator("#image input[type=file]").set_input_files(IMAGE)
    page.locator("#image-drawing img").wait_for()
    page.get_by_text("1 person in").wait_for()
    save_screenshot(page, "image")
    with page.expect_download() as download:
        page.get_by_role("link", name="Keypoints (JSON)").or_(
            page.get_by_role("button", name="Keypoints (JSON)")
        ).first.click()
    (record,) = json.loads(Path(download.value.path()).read_text())
    height, width = cv2.imread(str(IMAGE)).shape[:2]
    assert (record["width"], record["height"]) == (width, height)
    (person,) = record["persons"]
    assert len(person["keypoints"]) == 17
    x1, y1, x2, y2 = person["box_xyxy"]
    assert (x2 - x1) * (y2 - y1) < 0.5 * width * height


def test_text_file_shows_message_and_clears_drawing(page: Any, tmp_path: Path) -> None:
    page.locator("#image input[type=file]").set_input_files(IMAGE)
    page.locator("#image-drawing img").wait_for()
    (tmp_path / "notes.txt").write_text("not an image")
    page.locator("#image").get_by_role("button", name="Clear").or_(
        page.locator("#image").get_by_label("Clear")
    ).first.click()
    page.locator("#image-drawing img").wait_for(state="detached")
    page.locator("#image input[type=file]").set_input_files(tmp_path / "notes.txt")
    message = page.locator("#image-summary").get_by_text("Failed")
    message.wait_for()
    assert "notes.txt" in message.locator("..").inner_text()
    assert page.locator("#image-drawing img").count() == 0
    save_screenshot(page, "failed")


def test_video_returns_playable_drawing(page: Any, tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "video.mp4", 10.0)
    for number, frame in enumerate(generate_video(0, 8, 1, (160, 120))):
        writer.write(frame.image, number / 10)
    writer.close()
    page.get_by_role("tab", name="Video").click()
    page.locator("#video input[type=file]").set_input_files(tmp_path / "video.mp4")
    page.get_by_text("8 frames").wait_for()
    video = page.locator("#video-drawing video")
    video.wait_for()
    page.wait_for_function("document.querySelector('#video-drawing video').readyState >= 2")
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [160, 120]
    assert video.evaluate("video => video.duration") == pytest.approx(0.8, abs=0.15)
    save_screenshot(page, "video")


def test_the_detector_finds_the_person_before_the_camera(page: Any, camera_frame: NDArray[np.uint8]) -> None:
    page.get_by_role("tab", name="Camera").click()
    page.locator("#camera").get_by_text("Click to Access Webcam").click()
    page.locator("#camera").get_by_role("button", name="Record").or_(
        page.locator("#camera button[aria-label='start stream'], #camera .icon >> visible=true")
    ).first.click()
    drawing = page.locator("#camera-drawing img")
    drawing.wait_for()
    first = drawing.get_attribute("src")
    has_changed = """before => {
        const image = document.querySelector('#camera-drawing img')
        return image?.src !== before && image?.naturalWidth > 100
    }"""
    page.wait_for_function(has_changed, arg=first)
    save_screenshot(page, "camera")
    response = page.request.get(page.evaluate("document.querySelector('#camera-drawing img').src"))
    drawn = cv2.imdecode(np.frombuffer(response.body(), np.uint8), cv2.IMREAD_COLOR)
    flipped = camera_frame[:, ::-1]  # as gradio shows cameras
    assert drawn.shape == flipped.shape
    rows, columns = np.nonzero(cv2.absdiff(drawn, flipped).max(axis=2) > 80)
    [[x1, y1, x2, y2]], _ = PersonDetector(threshold=0.4, device="cpu").detect(flipped)
    is_inside = (columns >= x1) & (columns <= x2) & (rows >= y1) & (rows <= y2)
    assert is_inside.sum() > 2000  # the skeleton, from the head to the feet
    assert np.ptp(rows[is_inside]) > 0.5 * (y2 - y1)
    assert is_inside.mean() > 0.9
