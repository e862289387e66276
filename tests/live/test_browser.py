"""The built page in headless Chromium, in which only this computer can be reached.

POSEDY_SCREENSHOTS=docs/images pytest tests/live/test_browser.py -k screenshot   # live.jpg, live_narrow.jpg
"""

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posedy.examples import example_images
from posedy.geometry import image_to_crop_matrix, padded_region, warp_crop, xywh_to_xyxy
from posedy.images import read_image
from posedy.inference.estimator import PoseEstimator
from posedy.prediction import load_model
from tests.chromium import BROWSER_MARKS, CAMERA_SIZE, CHROMIUM, camera_flags, camera_frame_of
from tools.live.build import ARCHIVE, DEFAULT_NETWORK, MAX_MB, build
from tools.live.serve import OUT, make_server

from .conftest import serve

pytestmark = [
    *BROWSER_MARKS,
    pytest.mark.skipif(
        any(find_spec(package) is None for package in ("onnx", "onnxscript", "onnxruntime")),
        reason="the extra export is not installed",
    ),
]
REPOSITORY = Path(__file__).parents[2]
MINI = REPOSITORY / "data/coco_mini"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"),
]
CROPS = 64
MAX_DIFFERENCE = 0.5
"""Largest difference from PyTorch's keypoints in pixels of the crop."""
MAX_SCREENSHOT_BYTES = 200_000


def example(name: str) -> Path:
    """The file of an example image."""
    return next(image.path for image in example_images() if image.path.stem == name)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built page; an archive of `make live` is used again."""
    out = tmp_path_factory.mktemp("live") / "page"
    archive = (REPOSITORY / OUT).parent / ARCHIVE
    if archive.is_file():
        shutil.copy(archive, out.parent)
    elif shutil.which("npm") is None:
        pytest.skip("npm is not installed, and there is no page built by make live")
    try:
        build(out)
    except OSError as error:
        if "npm could not download" in str(error):
            pytest.skip(str(error))
        raise
    return out


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    """Address of the page."""
    yield from serve(make_server(built, 0))


@pytest.fixture(scope="module")
def camera_frame() -> NDArray[np.uint8]:
    """The BGR image that the browser's camera sees: an example with one person."""
    return camera_frame_of(example("tennis"))


@pytest.fixture(scope="module")
def browser(camera_frame: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The browser, whose camera shows `camera_frame` at 30 frames/s."""
    camera = camera_flags(camera_frame, tmp_path_factory.mktemp("camera") / "camera.y4m", 30)
    from playwright.sync_api import sync_playwright  # slow import, needed only here

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *camera])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens pages; afterwards checks that they requested nothing from other servers and raised no errors."""
    contexts, requested, errors = [], [], []

    def open_one(
        url: str = address, width: int = 1280, permissions: tuple[str, ...] = ("camera",), cores: int | None = None
    ) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, permissions=list(permissions))
        contexts.append(context)
        page = context.new_page()
        if cores is not None:
            page.add_init_script(f"Object.defineProperty(navigator, 'hardwareConcurrency', {{ get: () => {cores} }})")
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(url)
        wait(page, "window.posedy?.result || document.querySelector('#alert').textContent")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert {urlsplit(url).hostname for url in requested if url.startswith("http")} == {"localhost"}
    assert errors == []


def wait(page: Any, condition: str, seconds: float = 120) -> None:
    """Waits until a JavaScript expression is true; the page's policy forbids the loops of playwright."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, f"{condition}: {page.inner_text('body')}"
        time.sleep(0.1)


def result_of(page: Any, path: Path) -> Any:
    """Chooses an image and returns the result."""
    page.locator("#file").set_input_files(path)
    wait(page, f"posedy.result && document.querySelector('#status').textContent.startsWith('{path.name}: ')")
    return page.evaluate("posedy.result")


def real_crops(size: tuple[int, int]) -> NDArray[np.uint8]:
    """The crops (64, H, W, 3) of the first persons of coco_mini with labeled keypoints."""
    content = json.loads((MINI / "annotations/person_keypoints_val2017.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    persons = [person for person in content["annotations"] if person["num_keypoints"] and not person["iscrowd"]]
    crops = []
    for person in persons[:CROPS]:
        image = read_image(MINI / "val2017" / names[person["image_id"]])
        region = padded_region(xywh_to_xyxy(person["bbox"]), size[0] / size[1])
        crops.append(warp_crop(image, image_to_crop_matrix(*region, size), size))
    assert len(crops) == CROPS
    return np.stack(crops)


def test_the_folder_is_small(built: Path) -> None:
    assert sum(path.stat().st_size for path in built.iterdir()) <= MAX_MB * 1e6


def test_keypoints_of_crops_equal_pytorchs(open_page: Callable[..., Any]) -> None:
    model = load_model(DEFAULT_NETWORK, "cpu", "torch")
    crops = real_crops(model.input_size)
    expected, expected_scores = model.decode(model(crops))
    page = open_page()
    encoded = [base64.b64encode(crop.tobytes()).decode() for crop in crops]
    decode = "(texts) => posedy.run(texts.map((text) => Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0))))"
    results = page.evaluate(decode, encoded)
    keypoints = np.array([result["keypoints"] for result in results])
    scores = np.array([result["scores"] for result in results])
    differences = np.linalg.norm(keypoints - expected, axis=-1)
    print(
        f"{CROPS} crops: keypoints differ from PyTorch's by up to {differences.max():.1e} pixels of the crop "
        f"(mean {differences.mean():.1e}), scores by up to {np.abs(scores - expected_scores).max():.1e}"
    )
    assert differences.max() <= MAX_DIFFERENCE
    assert np.abs(scores - expected_scores).max() < 0.01


@pytest.mark.parametrize(("name", "persons"), [("tennis", 1), ("soccer", 14)])
def test_poses_of_an_image_equal_the_estimators(open_page: Callable[..., Any], name: str, persons: int) -> None:
    expected = PoseEstimator(DEFAULT_NETWORK, "cpu", flip=False)(example(name))
    result = result_of(open_page(), example(name))
    assert (result["height"], result["width"]) == cv2.imread(str(example(name))).shape[:2]
    assert len(result["poses"]) == len(expected) == persons
    sides = (expected.boxes[:, 2:] - expected.boxes[:, :2]).max(axis=1)
    for pose, wanted, side in zip(result["poses"], expected, sides, strict=True):
        np.testing.assert_allclose(pose["box"], wanted.box, atol=0.02 * side)
        confident = wanted.scores > 0.3
        distances = np.linalg.norm(np.array(pose["keypoints"]) - wanted.keypoints, axis=-1)[confident]
        print(f"{name}: person of {side:.0f} pixels: keypoints differ by up to {distances.max(initial=0):.2f} pixels")
        assert np.median(distances) < 0.01 * side
        assert distances.max(initial=0) < 0.05 * side


def test_a_file_that_is_no_image_is_named(open_page: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    page = open_page()
    page.locator("#file").set_input_files(tmp_path / "notes.txt")
    wait(page, "document.querySelector('#alert').textContent.includes('notes.txt')")
    page.locator("#example").click()
    wait(page, "posedy.result?.poses.length === 14")
    assert page.inner_text("#alert") == ""


def test_a_dropped_file_is_predicted(open_page: Callable[..., Any]) -> None:
    page = open_page()
    data = base64.b64encode(example("tennis").read_bytes()).decode()
    page.evaluate(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (byte) => byte.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], "tennis.jpg", { type: "image/jpeg" }));
            for (const type of ["dragover", "drop"]) {
                document.querySelector("#stage").dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true }));
            }
        }""",
        data,
    )
    wait(page, "document.querySelector('#status').textContent.startsWith('tennis.jpg: 1 person')")


def test_the_camera_is_followed(open_page: Callable[..., Any], camera_frame: NDArray[np.uint8]) -> None:
    page = open_page()
    page.locator("#camera").click()
    wait(page, "posedy.result?.framesPerSecond")
    time.sleep(8)
    result = page.evaluate("posedy.result")
    print(page.inner_text("#numbers"), page.inner_text("#about"))
    assert page.inner_text("#numbers").endswith("frames/s, 1 person")
    assert result["framesPerSecond"] > 1  # with other work on the computer
    assert (result["width"], result["height"]) == CAMERA_SIZE
    [pose] = result["poses"]
    [expected] = PoseEstimator(DEFAULT_NETWORK, "cpu", detector=None, flip=False)(camera_frame, [pose["box"]])
    distances = np.linalg.norm(np.array(pose["keypoints"]) - expected.keypoints, axis=-1)[expected.scores > 0.3]
    print(f"camera: keypoints differ by up to {distances.max():.2f} pixels")
    assert len(distances) > 10
    assert np.median(distances) < 2
    assert distances.max() < 15  # the camera's colors are converted
    page.locator("#camera").click()
    wait(page, "document.querySelector('#status').textContent === 'The camera is off.'")
    assert page.inner_text("#camera") == "Start the camera"
    assert page.evaluate("document.querySelector('#video').srcObject") is None


def test_a_blocked_camera_is_explained(open_page: Callable[..., Any]) -> None:
    page = open_page(permissions=())
    page.locator("#camera").click()
    wait(page, "document.querySelector('#alert').textContent.startsWith('The camera is blocked')")
    assert page.inner_text("#camera") == "Start the camera"


@pytest.mark.parametrize("cores", [2, 8])
def test_the_page_works_without_threads_and_says_so(open_page: Callable[..., Any], built: Path, cores: int) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(built))
    for plain in serve(ThreadingHTTPServer(("127.0.0.1", 0), handler)):
        page = open_page(plain, cores=cores)
        assert page.locator("#threads").is_visible() == (cores == 8)
        assert "1 thread." in page.inner_text("#about")
        assert len(page.evaluate("posedy.result.poses")) == 14


@pytest.mark.parametrize(("cores", "threads"), [(2, 1), (4, 2), (16, 4)])
def test_threads_are_used_if_there_are_cores(open_page: Callable[..., Any], cores: int, threads: int) -> None:
    page = open_page(cores=cores)
    assert page.evaluate("crossOriginIsolated")
    assert not page.locator("#threads").is_visible()
    assert page.evaluate("posedy.ready.then((estimator) => estimator.threads)") == threads
    assert len(page.evaluate("posedy.result.poses")) == 14


def test_the_keyboard_reaches_all_controls(open_page: Callable[..., Any]) -> None:
    page = open_page()
    focused = []
    for _ in range(3):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id"))
    assert focused == ["file", "example", "camera"]
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('#camera').textContent === 'Stop the camera'")


@pytest.mark.parametrize(("name", "width"), [("live", 1000), ("live_narrow", 390)])
def test_screenshot_of_the_page_fits_its_width(
    open_page: Callable[..., Any], name: str, width: int, tmp_path: Path
) -> None:
    page = open_page(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    first = page.evaluate("posedy.result.milliseconds")  # that of a cold start
    page.locator("#example").press("Enter")
    wait(page, f"posedy.result && posedy.result.milliseconds !== {first}")
    page.evaluate("document.activeElement.blur()")
    path = Path(os.environ.get("POSEDY_SCREENSHOTS", tmp_path)) / f"{name}.jpg"
    page.screenshot(path=path, full_page=True, type="jpeg", quality=80)
    assert path.stat().st_size <= MAX_SCREENSHOT_BYTES
