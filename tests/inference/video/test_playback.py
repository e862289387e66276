"""Drawn videos in a browser."""

import base64
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from posedy.inference.video_writer import VideoWriter
from tests.inference.video.clips import write_clip

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMES = [0, 0.1, 0.2, 1.2, 1.25, 2.0]
COLORS = [(30, 60, 220), (200, 200, 40)]  # BGR, by turns
# The size, the duration and the color (RGB) at each time of a video, after it is played.
SHOW = """async times => {
    const video = document.querySelector('video')
    await video.play()
    video.pause()
    const canvas = document.createElement('canvas')
    const context = canvas.getContext('2d')
    const colors = []
    for (const time of times) {
        const seeked = new Promise(resolve => video.addEventListener('seeked', resolve, {once: true}))
        video.currentTime = time + 0.02
        await seeked
        context.drawImage(video, 0, 0)
        colors.push(Array.from(context.getImageData(20, 20, 1, 1).data.slice(0, 3)))
    }
    return {size: [video.videoWidth, video.videoHeight], duration: video.duration, error: video.error?.message, colors,
            hasSound: video.webkitAudioDecodedByteCount > 0}
}"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed")
def test_browsers_play_drawn_videos_with_their_times_colors_and_sound(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright  # slow import, needed only here

    writer = VideoWriter(tmp_path / "drawn.mp4", 10.0, write_clip(tmp_path / "a.mp4", num_frames=26, audio="aac"))
    for number, time in enumerate(TIMES):
        writer.write(np.full((63, 97, 3), COLORS[number % 2], np.uint8), time)
    writer.close()
    content = base64.b64encode((tmp_path / "drawn.mp4").read_bytes()).decode()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content(f'<video src="data:video/mp4;base64,{content}"></video>')
        shown = page.evaluate(SHOW, TIMES)
        browser.close()
    assert shown["error"] is None
    assert shown["size"] == [98, 64]
    assert shown["duration"] == pytest.approx(2.1, abs=0.05)
    assert shown["hasSound"]
    expected = [COLORS[number % 2][::-1] for number in range(len(TIMES))]
    np.testing.assert_allclose(shown["colors"], expected, atol=12)
