"""Web page with tabs for images, videos and the camera."""

import base64
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from posedy.app.service import VIDEO_FORMAT, CameraState, PoseService, Result
from posedy.drawing import DRAW_THRESHOLD
from posedy.examples import example_credits, example_images
from posedy.images import encode_jpeg, rgb_to_bgr
from posedy.models.registry import list_presets
from posedy.poses import format_count

MAX_FILE_MB = 50
"""The largest upload in megabytes."""
CSS = """
#examples .grid-wrap, #examples .gallery-container { min-height: 0; height: auto; max-height: none }
#examples .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)); padding-top: 0 }
"""
"""The style sheet of the page."""
_DETECTOR_LABELS = {"full-image": "full-image (one person)", "torchvision": "torchvision (downloaded at first use)"}
_PROGRESS = gr.Progress()


def make_page(service: PoseService) -> gr.Blocks:
    """Builds the page, which `serve` launches."""
    with gr.Blocks(title="posedy", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            "# posedy\nKeypoints of people in images, videos and from the camera. All data stay on the computer that "
            "runs posedy."
        )
        with gr.Row():
            model = gr.Dropdown(_model_choices(service), label="Network", min_width=280, elem_id="network")
            detectors = [(_DETECTOR_LABELS.get(name, name), name) for name in service.detectors]
            detector = gr.Dropdown(detectors, label="Person detector", min_width=280, elem_id="detector")
            threshold = gr.Slider(
                0,
                1,
                DRAW_THRESHOLD,
                step=0.05,
                label="Keypoint threshold (lower scores: faint)",
                min_width=280,
                elem_id="threshold",
            )
        settings: list[Any] = [model, detector, threshold]
        shows_images = gr.State(True)
        with gr.Tab("Image") as image_tab, gr.Row():
            _add_images(service, settings, shows_images, [page.load, image_tab.select])
        with gr.Tab("Video") as video_tab, gr.Row():
            page.unload(_add_videos(service, settings))
        with gr.Tab("Camera") as camera_tab, gr.Row():
            _add_camera(service, settings)
        gr.on([video_tab.select, camera_tab.select], lambda: False, None, shows_images, api_visibility="private")
    return page


def _add_images(service: PoseService, settings: list[Any], is_shown: gr.State, show_events: list[Any]) -> None:
    """Adds the example images, the upload of an image and its result.

    Args:
        service: estimates the poses.
        settings: the components of the network, the detector and the threshold.
        is_shown: whether the tab is shown: else changes of settings have no effect until it is.
        show_events: the events that show the tab.
    """
    examples = example_images()
    source = gr.State(str(examples[0].path))  # the image: an example or an upload
    with gr.Column(scale=2):
        gallery = gr.Gallery(
            [(str(example.path), example.path.stem) for example in examples],
            label="Example images",
            show_label=False,
            columns=3,
            selected_index=0,
            height="auto",
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="examples",
        )
        gr.Markdown(example_credits(), elem_id="credits")
        image = gr.File(label=f"Your image (up to {MAX_FILE_MB} MB)", height=120, elem_id="image")
    with gr.Column(scale=3):
        drawing = gr.Image(label="Keypoints", interactive=False, buttons=["fullscreen"], elem_id="image-drawing")
        summary = gr.Markdown(elem_id="image-summary")
        downloads = _add_downloads("image", "Image (JPEG)", "Keypoints (JSON)", "Keypoints (CSV)")

    @_as_outputs(len(downloads))
    def process_image(image: str, model: str, detector: str, threshold: float) -> Result:
        return service.process_image(image, model, detector, threshold)

    def choose_example(event: gr.SelectData, *values: Any) -> list[Any]:
        path = str(examples[event.index].path)
        return [path, *process_image(path, *values), None]

    def choose_file(image: str | None, model: str, detector: str, threshold: float) -> list[Any]:
        return [image, *process_image(image, model, detector, threshold), gr.Gallery(selected_index=None)]

    def change_settings(is_shown: bool, *inputs: Any) -> Any:
        return process_image(*inputs) if is_shown else gr.skip()

    def show(*inputs: Any) -> list[Any]:
        return [True, *process_image(*inputs)]

    outputs: list[Any] = [drawing, summary, *downloads]
    on = functools.partial(gr.on, show_progress_on=drawing)
    # the last of several quick choices counts
    on(
        [gallery.select],
        choose_example,
        settings,
        [source, *outputs, image],
        trigger_mode="always_last",
        api_visibility="private",
    )
    on(
        [image.upload, image.clear],
        choose_file,
        [image, *settings],
        [source, *outputs, gallery],
        trigger_mode="always_last",
        api_name="process_image",
    )
    on(
        [setting.change for setting in settings],
        change_settings,
        [is_shown, source, *settings],
        outputs,
        trigger_mode="always_last",
        api_visibility="private",
    )
    on(show_events, show, [source, *settings], [is_shown, *outputs], api_visibility="private")


def _add_videos(service: PoseService, settings: list[Any]) -> Callable[[gr.Request], None]:
    """Adds the upload of a video and its result, which changes of settings do not change by themselves.

    Returns:
        The function that stops the video of a request's session.
    """
    running: dict[str | None, threading.Event] = {}  # whether to stop the video of each session
    with gr.Column(scale=2):
        video = gr.File(label=f"Your video (up to {MAX_FILE_MB} MB)", height=120, elem_id="video")
        again = gr.Button("Run again with the current settings", size="sm", elem_id="video-again")
        stop = gr.Button("Stop", size="sm", elem_id="video-stop")
    with gr.Column(scale=3):
        drawing = gr.Video(label="Keypoints", interactive=False, buttons=[], elem_id="video-drawing")
        summary = gr.Markdown(elem_id="video-summary")
        downloads = _add_downloads("video", f"Video ({VIDEO_FORMAT})", "Keypoints (JSON Lines)")

    @_as_outputs(len(downloads))
    def process_video(
        video: str, model: str, detector: str, threshold: float, request: gr.Request, progress: gr.Progress = _PROGRESS
    ) -> Result:
        is_stopped = running[request.session_hash] = threading.Event()

        def report(done: int, total: int | None) -> None:
            if is_stopped.is_set():
                raise InterruptedError(f"Stopped after {format_count(done, 'frame')}")
            progress((done, total), unit="frames")

        try:
            return service.process_video(video, model, detector, threshold, report)
        finally:
            running.pop(request.session_hash, None)

    def stop_video(request: gr.Request) -> None:
        if (is_stopped := running.get(request.session_hash)) is not None:
            is_stopped.set()

    gr.on(
        [video.change, again.click],
        process_video,
        [video, *settings],
        [drawing, summary, *downloads],
        show_progress_on=drawing,
        trigger_mode="always_last",  # after a video that is stopped the next one follows
        api_name="process_video",
    )
    gr.on([stop.click, video.clear], stop_video, queue=False, api_visibility="private")
    return stop_video


def _add_camera(service: PoseService, settings: list[Any]) -> None:
    """Adds the camera and its frames with the poses drawn."""
    camera = gr.Image(
        sources=["webcam"],
        webcam_options=gr.WebcamOptions(mirror=False),  # a flipped person has left and right exchanged
        streaming=True,
        type="numpy",
        label="Camera",
        elem_id="camera",
    )
    drawing = gr.Image(
        label="Keypoints", interactive=False, format="jpeg", buttons=["fullscreen"], elem_id="camera-drawing"
    )
    state = gr.State()

    def process_frame(
        frame: NDArray[np.uint8] | None, last: CameraState | None, model: str, detector: str, threshold: float
    ) -> tuple[Any, CameraState | None]:
        if frame is None:
            return None, last
        try:
            drawn, state = service.process_frame(frame, model, detector, threshold, last)
        except (OSError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        jpeg = base64.b64encode(encode_jpeg(rgb_to_bgr(drawn))).decode()
        return {"url": f"data:image/jpeg;base64,{jpeg}"}, state

    camera.stream(
        process_frame,
        [camera, state, *settings],
        [drawing, state],
        stream_every=0.1,
        concurrency_limit=None,  # a browser has its place until its camera stops
        postprocess=False,  # it would write a file for each frame
    )


def _model_choices(service: PoseService) -> list[tuple[str, str]]:
    """Returns the labels and values of the networks; the label of a preset has the name of its network."""
    presets = list_presets()
    return [(f"{model} ({presets[model]})" if model in presets else model, model) for model in service.models]


def _add_downloads(prefix: str, *labels: str) -> list[gr.DownloadButton]:
    """Adds a row of download buttons, which are disabled until there are files."""
    with gr.Row():
        return [
            gr.DownloadButton(label, interactive=False, size="sm", min_width=140, elem_id=f"{prefix}-download-{number}")
            for number, label in enumerate(labels)
        ]


def _as_outputs(num_files: int) -> Callable[[Callable[..., Result]], Callable[..., list[Any]]]:
    """Converts results into outputs: the drawing, the summary and the updates of a number of download buttons.

    Input errors replace the last drawing by a message.
    """

    def decorate(process: Callable[..., Result]) -> Callable[..., list[Any]]:
        @functools.wraps(process)
        def wrapper(path: str | None, *settings: Any) -> list[Any]:
            if path is None:
                return [None, "", *num_files * [_update_download(None)]]
            try:
                result = process(path, *settings)
            except (OSError, ValueError) as error:
                folder = f"{Path(path).parent}{os.sep}"  # temporary folder of the upload, meaningless to users
                prefix = "" if isinstance(error, InterruptedError) else "**Failed:** "
                message = f"{prefix}{str(error).replace(folder, '')}"
                return [None, message, *num_files * [_update_download(None)]]
            files = (result.drawing, *result.keypoints)
            return [str(result.drawing), result.summary, *map(_update_download, files)]

        return wrapper

    return decorate


def _update_download(file: Path | None) -> gr.DownloadButton:
    """Returns the update of a download button; without a file it is disabled."""
    if file is None:
        return gr.DownloadButton(value=None, interactive=False, variant="secondary")
    return gr.DownloadButton(value=str(file), interactive=True, variant="primary")
