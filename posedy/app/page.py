"""The page: a tab each for photos, videos and the camera."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# before gradio is imported: it asks for its version and tells of its use otherwise
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from posedy.app.service import PERSONS, CameraState, PoseService
from posedy.drawing import DRAW_THRESHOLD

LARGEST_FILE = "50mb"


def make_page(looker: PoseService) -> gr.Blocks:
    """The page, to be launched."""
    with gr.Blocks(title="posedy", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            "# posedy\nKeypoints of people in photos, videos and from the camera. Nothing leaves this computer."
        )
        with gr.Row():
            model = gr.Dropdown(list(looker.models), value=looker.models[0], label="Model")
            persons = gr.Radio(list(PERSONS), value=PERSONS[0], label="Persons")
            threshold = gr.Slider(0, 1, DRAW_THRESHOLD, step=0.05, label="Keypoints up to this score are faint")
        choices: list[Any] = [model, persons, threshold]
        with gr.Tab("Photo"), gr.Row():
            with gr.Column():
                photo = gr.File(label=f"Photo (up to {LARGEST_FILE})", elem_id="photo")
            with gr.Column():
                drawn = gr.Image(label="Keypoints", interactive=False, format="jpeg", elem_id="drawn")
                words = gr.Markdown(elem_id="words")
                keypoints = gr.DownloadButton("Keypoints as JSON", interactive=False, elem_id="keypoints")
        with gr.Tab("Video"), gr.Row():
            with gr.Column():
                video = gr.File(label=f"Video (up to {LARGEST_FILE})", elem_id="video")
            with gr.Column():
                played = gr.Video(label="Keypoints", interactive=False, elem_id="played")
                video_words = gr.Markdown(elem_id="video-words")
                lines = gr.DownloadButton("Keypoints, a line a frame", interactive=False, elem_id="lines")
        with gr.Tab("Camera"), gr.Row():
            camera = gr.Image(sources=["webcam"], streaming=True, type="numpy", label="Camera", elem_id="camera")
            live = gr.Image(label="Keypoints", interactive=False, format="jpeg", elem_id="live")
            state = gr.State()

        @_in_words
        def see_photo(path: str | None, *chosen: Any) -> tuple[Any, str, Any]:
            if path is None:
                return _nothing("")
            seen = looker.photo(path, *chosen)
            return (
                seen.drawn,
                seen.words,
                _download(seen.keypoints),
            )

        @_in_words
        def see_video(path: str | None, *chosen: Any) -> tuple[Any, str, Any]:
            if path is None:
                return _nothing("")
            seen = looker.video(path, *chosen)
            return (
                str(seen.drawn),
                seen.words,
                _download(seen.keypoints),
            )

        def see_camera(
            image: NDArray[np.uint8] | None, held: CameraState | None, model: str, persons: str, threshold: float
        ) -> tuple[Any, CameraState | None]:
            if image is None:
                return None, held
            try:
                return looker.camera(image, model, persons, threshold, held)
            except (OSError, ValueError) as error:
                raise gr.Error(str(error), print_exception=False) from error

        photo.change(see_photo, [photo, *choices], [drawn, words, keypoints])
        for choice in choices:
            choice.change(see_photo, [photo, *choices], [drawn, words, keypoints])
            choice.change(see_video, [video, *choices], [played, video_words, lines])
        video.change(see_video, [video, *choices], [played, video_words, lines])
        camera.stream(see_camera, [camera, state, *choices], [live, state], stream_every=0.1, concurrency_limit=1)
    return page


def serve(looker: PoseService, host: str, port: int) -> gr.Blocks:
    """Serves the page from a thread of its own, until its `close`.

    Args:
        looker: does the work.
        host: the address to listen at.
        port: the port to listen at.

    Raises:
        OSError: if the port is taken.
    """
    page = make_page(looker)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=LARGEST_FILE,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise OSError(f"cannot serve the page at {host}:{port} ({error}): choose another --port or --host") from error
    return page


def launch(looker: PoseService, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Shows the page until Ctrl-C.

    Args:
        looker: see `serve`, and so for host, port and errors.
        host: the address to listen at.
        port: the port to listen at.
        ready: is told the page's address once it is there.
    """
    page = serve(looker, host, port)
    ready(f"http://{host}:{port}")
    page.block_thread()


def _nothing(words: str) -> tuple[Any, str, Any]:
    """No drawing and no file, and why."""
    return None, words, _download(None)


def _download(file: Path | None) -> gr.DownloadButton:
    """The button that gives a file; gray without one."""
    if file is None:
        return gr.DownloadButton(value=None, interactive=False, variant="secondary")
    return gr.DownloadButton(value=str(file), interactive=True, variant="primary")


def _in_words(work: Callable[..., tuple[Any, str, Any]]) -> Callable[..., tuple[Any, str, Any]]:
    """Shows errors of the input as words on the page, in place of the drawing before."""

    @functools.wraps(work)
    def guarded(*given: Any) -> tuple[Any, str, Any]:
        try:
            return work(*given)
        except (OSError, ValueError) as error:
            folder = f"{Path(given[0]).parent}{os.sep}" if given[0] else ""  # where uploads go is nobody's concern
            return _nothing(f"**Not done:** {str(error).replace(folder, '')}")

    return guarded
