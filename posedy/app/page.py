"""Web page with tabs for images, videos and the camera."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# set before the import of gradio, which otherwise sends usage data and checks for updates
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from posedy.app.service import BOX_SOURCES, CameraState, PoseService, Result
from posedy.drawing import DRAW_THRESHOLD

MAX_FILE_SIZE = "50mb"


def make_page(service: PoseService) -> gr.Blocks:
    """Builds the page, which `serve` launches."""
    with gr.Blocks(title="posedy", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            "# posedy\nKeypoints of people in images, videos and from the camera. All data stay on this computer."
        )
        with gr.Row():
            model = gr.Dropdown(list(service.models), value=service.models[0], label="Model")
            box_source = gr.Radio(list(BOX_SOURCES), value=BOX_SOURCES[0], label="Person boxes")
            threshold = gr.Slider(0, 1, DRAW_THRESHOLD, step=0.05, label="Keypoint score threshold (faint up to it)")
        settings: list[Any] = [model, box_source, threshold]
        with gr.Tab("Image"), gr.Row():
            with gr.Column():
                image = gr.File(label=f"Image (up to {MAX_FILE_SIZE})", elem_id="image")
            with gr.Column():
                image_drawing = gr.Image(label="Keypoints", interactive=False, format="jpeg", elem_id="image-drawing")
                image_summary = gr.Markdown(elem_id="image-summary")
                image_keypoints = gr.DownloadButton("Keypoints (JSON)", interactive=False, elem_id="image-keypoints")
        with gr.Tab("Video"), gr.Row():
            with gr.Column():
                video = gr.File(label=f"Video (up to {MAX_FILE_SIZE})", elem_id="video")
            with gr.Column():
                video_drawing = gr.Video(label="Keypoints", interactive=False, elem_id="video-drawing")
                video_summary = gr.Markdown(elem_id="video-summary")
                video_keypoints = gr.DownloadButton(
                    "Keypoints (JSON Lines)", interactive=False, elem_id="video-keypoints"
                )
        with gr.Tab("Camera"), gr.Row():
            camera = gr.Image(sources=["webcam"], streaming=True, type="numpy", label="Camera", elem_id="camera")
            camera_drawing = gr.Image(label="Keypoints", interactive=False, format="jpeg", elem_id="camera-drawing")
            state = gr.State()

        @_as_outputs
        def process_image(path: str, *values: Any) -> Result:
            return service.process_image(path, *values)

        @_as_outputs
        def process_video(path: str, *values: Any) -> Result:
            return service.process_video(path, *values)

        def process_frame(
            frame: NDArray[np.uint8] | None, last: CameraState | None, model: str, box_source: str, threshold: float
        ) -> tuple[Any, CameraState | None]:
            if frame is None:
                return None, last
            try:
                return service.process_frame(frame, model, box_source, threshold, last)
            except (OSError, ValueError) as error:
                raise gr.Error(str(error), print_exception=False) from error

        image_outputs: list[Any] = [image_drawing, image_summary, image_keypoints]
        video_outputs: list[Any] = [video_drawing, video_summary, video_keypoints]
        image.change(process_image, [image, *settings], image_outputs)
        for setting in settings:
            setting.change(process_image, [image, *settings], image_outputs)
            setting.change(process_video, [video, *settings], video_outputs)
        video.change(process_video, [video, *settings], video_outputs)
        camera.stream(
            process_frame, [camera, state, *settings], [camera_drawing, state], stream_every=0.1, concurrency_limit=1
        )
    return page


def serve(service: PoseService, host: str, port: int) -> gr.Blocks:
    """Serves the page from a background thread until its `close` method is called.

    Args:
        service: estimates the poses.
        host: address to listen at.
        port: port to listen at.

    Raises:
        OSError: if the port is in use.
    """
    page = make_page(service)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=MAX_FILE_SIZE,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise OSError(f"cannot serve the page at {host}:{port} ({error}): choose another --port or --host") from error
    return page


def launch(service: PoseService, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serves the page until Ctrl-C.

    Args:
        service: estimates the poses.
        host: address to listen at.
        port: port to listen at.
        on_ready: called with the page's address as soon as the page is available.

    Raises:
        OSError: if the port is in use.
    """
    page = serve(service, host, port)
    on_ready(f"http://{host}:{port}")
    page.block_thread()


_Outputs = tuple[Any, str, gr.DownloadButton]  # drawing, summary and download


def _as_outputs(process: Callable[..., Result]) -> Callable[..., _Outputs]:
    """Converts results into outputs of the page; input errors replace the last drawing by a message."""

    @functools.wraps(process)
    def wrapper(path: str | None, *settings: Any) -> _Outputs:
        if path is None:
            return None, "", _download_button(None)
        try:
            result = process(path, *settings)
        except (OSError, ValueError) as error:
            folder = f"{Path(path).parent}{os.sep}"  # temporary folder of the upload, meaningless to users
            return None, f"**Failed:** {str(error).replace(folder, '')}", _download_button(None)
        drawing = str(result.drawing) if isinstance(result.drawing, Path) else result.drawing
        return drawing, result.summary, _download_button(result.keypoints_file)

    return wrapper


def _download_button(file: Path | None) -> gr.DownloadButton:
    """Returns the update of a download button; without a file it is disabled."""
    if file is None:
        return gr.DownloadButton(value=None, interactive=False, variant="secondary")
    return gr.DownloadButton(value=str(file), interactive=True, variant="primary")
