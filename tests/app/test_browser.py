"""The page in a headless browser.

POSEDY_SCREENSHOTS=docs/images pytest tests/app/test_browser.py -k screenshot   # web_page.jpg, web_page_narrow.jpg
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posedy.app.service import VIDEO_FORMAT, PoseService
from posedy.drawing import DRAW_THRESHOLD
from posedy.examples import LICENSE_PAGE, example_images
from posedy.inference.detectors import PersonDetector
from posedy.inference.video_writer import VideoWriter
from posedy.models.pretrained import DEFAULT
from tests.chromium import BROWSER_MARKS, CHROMIUM, camera_flags, camera_frame_of
from tools.lab.synthetic.video import generate_video

pytestmark = [
    *BROWSER_MARKS,
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed"),
]
IMAGE = Path(__file__).parents[2] / "data/coco_mini/val2017/000000085772.jpg"
MAX_SCREENSHOT_BYTES = 300_000


@pytest.fixture(scope="module")
def model() -> str:
    """The pretrained network, whose keypoints are confident enough to be drawn."""
    return DEFAULT


@pytest.fixture(scope="module")
def camera_frame() -> NDArray[np.uint8]:
    """The image that the browser's camera sees: IMAGE on gray."""
    return camera_frame_of(IMAGE)


@pytest.fixture
def width() -> int:
    """The width of the page in pixels."""
    return 1280


@pytest.fixture
def page(address: str, width: int, camera_frame: NDArray[np.uint8], tmp_path: Path) -> Iterator[Any]:
    """The opened page; afterwards checks that it requested nothing from other servers."""
    camera = camera_flags(camera_frame, tmp_path / "camera.y4m", 10)
    camera.append("--use-fake-ui-for-media-stream")
    requested: list[str] = []
    from playwright.sync_api import sync_playwright  # slow import, needed only here

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        size = {"width": width, "height": 800}
        context = browser.new_context(viewport=size, permissions=["camera"], device_scale_factor=1.5)
        opened = context.new_page()
        opened.set_default_timeout(60_000)
        opened.on("request", lambda request: requested.append(request.url))
        opened.goto(address)
        opened.get_by_text("persons in").wait_for()  # in the first example
        yield opened
        browser.close()
    hosts = {urlsplit(url).hostname for url in requested if url.startswith("http")}
    assert hosts == {"127.0.0.1"}


def choose_example(page: Any, name: str) -> None:
    """Chooses an example and waits for its drawing."""
    before = page.evaluate("document.querySelector('#image-drawing img')?.src")
    page.locator("#examples button").filter(has=page.get_by_alt_text(name)).click()
    page.wait_for_function(
        """before => {
            const image = document.querySelector('#image-drawing img')
            return image && image.src !== before && image.naturalWidth > 0
        }""",
        arg=before,
    )


def download(page: Any, label: str) -> Any:
    """Returns the download that a button starts."""
    with page.expect_download() as started:
        page.get_by_role("link", name=label).or_(page.get_by_role("button", name=label)).first.click()
    return started.value


def test_examples_are_credited_and_their_results_downloaded(page: Any) -> None:
    links = page.locator("#credits a").evaluate_all("links => links.map(link => link.href)")
    assert links == [LICENSE_PAGE, *(example.page for example in example_images())]
    choose_example(page, "tennis")
    page.get_by_text("1 person in").wait_for()
    (record,) = json.loads(Path(download(page, "Keypoints (JSON)").path()).read_text())
    assert record["file"] == "tennis.jpg"
    table = download(page, "Keypoints (CSV)")
    assert table.suggested_filename == "tennis-keypoints.csv"
    assert len(Path(table.path()).read_text().splitlines()) == 1 + 17
    drawn = cv2.imread(str(download(page, "Image (JPEG)").path()))
    assert drawn.shape == (record["height"], record["width"], 3)


@pytest.mark.parametrize(("name", "width"), [("web_page", 1280), ("web_page_narrow", 400)])
def test_screenshot_of_the_page_fits_its_width(
    page: Any, name: str, width: int, served: PoseService, tmp_path: Path
) -> None:
    for tab in ("Video", "Camera", "Image"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        controls = page.locator("input:visible, button:visible, a:visible").all()
        boxes = [control.bounding_box() for control in controls]
        assert len(boxes) > 8
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    choose_example(page, "soccer")
    choose_example(page, "kite")
    served._poses.clear()  # the first time was that of a cold start
    choose_example(page, "soccer")
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)  # fading
    path = Path(os.environ.get("POSEDY_SCREENSHOTS", tmp_path)) / f"{name}.jpg"
    page.screenshot(path=path, full_page=True, type="jpeg", quality=72)
    assert path.stat().st_size <= MAX_SCREENSHOT_BYTES
    assert cv2.imread(str(path)).shape[1] >= width


def test_settings_run_only_what_is_shown(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    processed: list[tuple[str, float]] = []
    process_image = PoseService.process_image

    def record(service: PoseService, path: str, model: str, detector: str, threshold: float) -> Any:
        processed.append((Path(path).name, threshold))
        return process_image(service, path, model, detector, threshold)

    monkeypatch.setattr(PoseService, "process_image", record)
    choose_example(page, "tennis")
    page.get_by_role("tab", name="Video").click()
    page.locator("#threshold input[type=number]").fill("0.6")
    page.locator("#threshold input[type=number]").blur()
    page.wait_for_timeout(2000)
    assert processed == [("tennis.jpg", DRAW_THRESHOLD)]
    before = page.locator("#image-drawing img").get_attribute("src")
    page.get_by_role("tab", name="Image").click()
    page.wait_for_function("before => document.querySelector('#image-drawing img')?.src !== before", arg=before)
    assert processed[-1] == ("tennis.jpg", 0.6)


def test_the_detector_finds_the_person_of_an_image(page: Any) -> None:
    page.locator("#image input[type=file]").set_input_files(IMAGE)
    page.get_by_text("1 person in").wait_for()
    assert page.locator("#examples button.selected").count() == 0
    (record,) = json.loads(Path(download(page, "Keypoints (JSON)").path()).read_text())
    height, width = cv2.imread(str(IMAGE)).shape[:2]
    assert (record["width"], record["height"]) == (width, height)
    (person,) = record["persons"]
    assert len(person["keypoints"]) == 17
    x1, y1, x2, y2 = person["box_xyxy"]
    assert (x2 - x1) * (y2 - y1) < 0.5 * width * height


def test_text_file_shows_message_and_clears_drawing(page: Any, tmp_path: Path) -> None:
    page.locator("#image input[type=file]").set_input_files(IMAGE)
    page.get_by_text("1 person in").wait_for()
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
    choose_example(page, "tennis")
    page.get_by_text("1 person in").wait_for()


def test_video_returns_playable_drawing(page: Any, tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "video.mp4", 10.0)
    for number, frame in enumerate(generate_video(0, 40, 1, (160, 120))):
        writer.write(frame.image, number / 10)
    writer.close()
    page.get_by_role("tab", name="Video").click()
    page.locator("#video input[type=file]").set_input_files(tmp_path / "video.mp4")
    page.locator("#video-drawing").get_by_text(re.compile(r"\d+/40 frames")).wait_for()
    page.get_by_text("40 frames,").wait_for()
    video = page.locator("#video-drawing video")
    video.wait_for()
    page.wait_for_function("document.querySelector('#video-drawing video').readyState >= 2")
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [160, 120]
    assert video.evaluate("video => video.duration") == pytest.approx(4, abs=0.15)
    name = f"video-poses.{VIDEO_FORMAT.lower()}"
    assert download(page, f"Video ({VIDEO_FORMAT})").suggested_filename == name
    lines = Path(download(page, "Keypoints (JSON Lines)").path()).read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(40))


def test_a_video_is_stopped(page: Any, tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "video.mp4", 10.0)
    for number in range(3000):
        writer.write(np.zeros((32, 32, 3), np.uint8), number / 10)
    writer.close()
    page.get_by_role("tab", name="Video").click()
    page.locator("#video input[type=file]").set_input_files(tmp_path / "video.mp4")
    page.locator("#video-drawing").get_by_text(re.compile("/3.*k frames")).wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator("#video-summary").get_by_text("Stopped after").wait_for()
    assert page.locator("#video-drawing video").count() == 0


def start_camera(page: Any) -> None:
    """Starts the camera and waits for the first frame with keypoints."""
    page.get_by_role("tab", name="Camera").click()
    page.locator("#camera").get_by_text("Click to Access Webcam").click()
    page.locator("#camera").get_by_role("button", name="Record").or_(
        page.locator("#camera button[aria-label='start stream'], #camera .icon >> visible=true")
    ).first.click()
    page.locator("#camera-drawing img").wait_for()


def test_two_browsers_use_their_cameras(page: Any, address: str) -> None:
    start_camera(page)
    other = page.context.browser.new_context(permissions=["camera"]).new_page()
    other.set_default_timeout(60_000)
    other.goto(address)
    start_camera(other)


def test_the_detector_finds_the_person_before_the_camera(page: Any, camera_frame: NDArray[np.uint8]) -> None:
    files = set(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*"))
    start_camera(page)
    first = page.locator("#camera-drawing img").get_attribute("src")
    has_changed = """before => {
        const image = document.querySelector('#camera-drawing img')
        return image?.src !== before && image?.naturalWidth > 100
    }"""
    page.wait_for_function(has_changed, arg=first)
    source = page.evaluate("document.querySelector('#camera-drawing img').src")
    jpeg = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    drawn = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == camera_frame.shape
    rows, columns = np.nonzero(cv2.absdiff(drawn, camera_frame).max(axis=2) > 80)
    [[x1, y1, x2, y2]], _ = PersonDetector(threshold=0.4, device="cpu").detect(camera_frame)
    is_inside = (columns >= x1) & (columns <= x2) & (rows >= y1) & (rows <= y2)
    assert is_inside.sum() > 2000  # the skeleton, from the head to the feet
    assert np.ptp(rows[is_inside]) > 0.5 * (y2 - y1)
    assert is_inside.mean() > 0.9
    assert set(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*")) == files  # none for each frame
