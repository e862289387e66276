"""The page in a real browser, headless; POSEDY_SCREENSHOTS=FOLDER keeps pictures of it."""

import json
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import pytest

from posedy.inference.video_io import VideoRecording
from tools.lab.synthetic.film import draw_film

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed"),
]
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """The page, opened; at the end it has asked nobody but its server for anything."""
    asked: list[str] = []
    from playwright.sync_api import sync_playwright  # heavy, and only needed here

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_CAMERA])
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, permissions=["camera"])
        opened = context.new_page()
        opened.set_default_timeout(60_000)
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(address)
        opened.get_by_role("tab", name="Photo").wait_for()
        yield opened
        browser.close()
    hosts = {urlsplit(url).hostname for url in asked if url.startswith("http")}
    assert hosts == {"127.0.0.1"}


def keep(page: Any, name: str) -> None:
    folder = os.environ.get("POSEDY_SCREENSHOTS")
    if folder is not None:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def photo_in(folder: Path) -> Path:
    frame = next(draw_film(0, 1, 1, (320, 240)))
    cv2.imwrite(str(folder / "photo.png"), frame.image)
    return folder / "photo.png"


def test_a_photo_comes_back_drawn_and_its_keypoints_as_json(page: Any, tmp_path: Path) -> None:
    page.locator("#photo input[type=file]").set_input_files(photo_in(tmp_path))
    page.locator("#drawn img").wait_for()
    page.get_by_text("1 person in").wait_for()
    keep(page, "photo")
    with page.expect_download() as download:
        page.get_by_role("link", name="Keypoints as JSON").or_(
            page.get_by_role("button", name="Keypoints as JSON")
        ).first.click()
    (record,) = json.loads(Path(download.value.path()).read_text())
    assert (record["width"], record["height"]) == (320, 240)
    (person,) = record["persons"]
    assert len(person["keypoints"]) == 17


def test_a_text_file_is_refused_in_words_and_clears_the_drawing(page: Any, tmp_path: Path) -> None:
    page.locator("#photo input[type=file]").set_input_files(photo_in(tmp_path))
    page.locator("#drawn img").wait_for()
    (tmp_path / "notes.txt").write_text("no picture")
    page.locator("#photo").get_by_role("button", name="Clear").or_(
        page.locator("#photo").get_by_label("Clear")
    ).first.click()
    page.locator("#drawn img").wait_for(state="detached")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "notes.txt")
    words = page.locator("#words").get_by_text("Not done")
    words.wait_for()
    assert words.locator("..").inner_text().startswith("Not done: photo notes.txt (10 bytes) is not a picture")
    assert page.locator("#drawn img").count() == 0
    keep(page, "refused")


def test_a_video_comes_back_and_plays(page: Any, tmp_path: Path) -> None:
    recording = VideoRecording(tmp_path / "film.mp4", 10.0)
    for number, frame in enumerate(draw_film(0, 8, 1, (160, 120))):
        recording.write(frame.image, number / 10)
    recording.close()
    page.get_by_role("tab", name="Video").click()
    page.locator("#video input[type=file]").set_input_files(tmp_path / "film.mp4")
    page.get_by_text("8 frames").wait_for()
    video = page.locator("#played video")
    video.wait_for()
    page.wait_for_function("document.querySelector('#played video').readyState >= 2")
    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [160, 120]
    assert video.evaluate("video => video.duration") == pytest.approx(0.8, abs=0.15)
    keep(page, "video")


def test_the_camera_s_pictures_come_back_drawn(page: Any) -> None:
    page.get_by_role("tab", name="Camera").click()
    page.locator("#camera").get_by_text("Click to Access Webcam").click()
    page.locator("#camera").get_by_role("button", name="Record").or_(
        page.locator("#camera button[aria-label='start stream'], #camera .icon >> visible=true")
    ).first.click()
    live = page.locator("#live img")
    live.wait_for()
    first = live.get_attribute("src")
    another = (
        "before => (image => image?.src !== before && image?.naturalWidth > 100)(document.querySelector('#live img'))"
    )
    page.wait_for_function(another, arg=first)
    keep(page, "camera")
