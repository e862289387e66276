import copy
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from posedy.inference.box_files import read_boxes_by_name
from posedy.inference.detectors import FullImageDetector
from posedy.inference.estimator import PoseEstimator
from posedy.models.factory import create_model
from posedy.models.network_file import network_state, save_weights
from posedy.models.pose_net import PoseNet
from posedy.poses import Poses

from .conftest import DOT_COLORS

BOXES = np.array([[20, 10, 90, 140], [60.5, 5, 190, 120], [-30, -20, 60, 80], [150, 100, 260, 230]], dtype=np.float32)


@pytest.fixture(scope="module")
def estimator(net: PoseNet) -> PoseEstimator:
    return PoseEstimator(net, device="cpu", detector=None)


def assert_same_poses(poses: Poses, others: Poses, shift: tuple[int, int] = (0, 0)) -> None:
    assert len(poses) == len(others)
    np.testing.assert_allclose(others.scores, poses.scores, rtol=0, atol=1e-3 * np.abs(poses.scores).max())
    # rounding may select either of two heatmap pixels of nearly equal height: a few keypoints only
    close = np.abs(others.keypoints - np.float32(shift) - poses.keypoints).max(axis=-1) < 1e-3
    assert close.mean() > 0.9


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_keypoints_are_at_the_dots(dot_net: PoseNet, flip: bool, scale: float) -> None:
    rng = np.random.default_rng(1)
    image = np.full((int(300 * scale), int(400 * scale), 3), 200, dtype=np.uint8)
    boxes = np.array([[20, 30, 140, 190], [200, 60, 390, 240]]) * scale
    expected = np.stack([rng.uniform(box[:2] + 10 * scale, box[2:] - 10 * scale, (3, 2)) for box in boxes])
    for person in expected:
        for (x, y), color in zip(person, DOT_COLORS, strict=True):
            center = (round(x * 16), round(y * 16))
            cv2.circle(image, center, round(7 * scale * 16), color[::-1], cv2.FILLED, cv2.LINE_AA, 4)
    poses = PoseEstimator(dot_net, device="cpu", flip=flip)(image, boxes)
    # in the larger crop, decoding and the flip shift are each accurate to a quarter of a heatmap pixel
    heatmap_pixel = 190 * 1.25 * scale / 24
    assert np.abs(poses.keypoints - expected).max() < 0.5 * heatmap_pixel
    assert poses.keypoints.dtype == poses.scores.dtype == poses.boxes.dtype == poses.box_scores.dtype == np.float32
    assert poses.skeleton == dot_net.skeleton


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.deepcopy, copy.copy])
def test_pickling_is_rejected_with_what_to_do(estimator: PoseEstimator, duplicate: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=r"PoseEstimator.*in each process"):
        duplicate({"nested": estimator} if duplicate is not copy.copy else estimator)


def test_every_kind_of_image_has_the_same_poses(estimator: PoseEstimator, image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    poses = estimator(image[..., ::-1], BOXES)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for given in (path, str(path), Image.open(path), tensor, tensor.float() / 255):
        others = estimator(given, BOXES)
        np.testing.assert_array_equal(others.keypoints, poses.keypoints)
        np.testing.assert_array_equal(others.scores, poses.scores)


def test_the_order_of_channels_changes_the_scores(estimator: PoseEstimator, image: np.ndarray) -> None:
    assert (estimator(image, BOXES).scores != estimator(image[..., ::-1], BOXES).scores).any()


def test_poses_draw_in_the_channel_order_of_the_call(estimator: PoseEstimator, image: np.ndarray) -> None:
    bgr = np.ascontiguousarray(image[..., ::-1])
    drawn = estimator(bgr, BOXES).draw(bgr)
    np.testing.assert_array_equal(estimator(image, BOXES, channels="rgb").draw(image), drawn[..., ::-1])


def test_gray_images_equal_three_equal_channels(estimator: PoseEstimator, image: np.ndarray) -> None:
    gray = image[..., 1]
    assert_same_poses(estimator(gray, BOXES), estimator(np.stack([gray] * 3, axis=-1), BOXES))


def test_padding_the_image_shifts_the_keypoints(estimator: PoseEstimator, image: np.ndarray) -> None:
    padded = np.pad(image, ((40, 8), (24, 16), (0, 0)))
    assert_same_poses(estimator(image, BOXES), estimator(padded, BOXES + [24, 40, 24, 40]), shift=(24, 40))  # noqa: RUF005


def test_permuting_boxes_permutes_poses(estimator: PoseEstimator, image: np.ndarray) -> None:
    order = [2, 0, 3, 1]
    poses = estimator(image, BOXES, box_scores=[0.1, 0.2, 0.3, 0.4])
    permuted = estimator(image, BOXES[order], box_scores=np.array([0.1, 0.2, 0.3, 0.4])[order])
    expected = Poses(poses.keypoints[order], poses.scores[order], BOXES, poses.box_scores, poses.skeleton)
    assert_same_poses(expected, permuted)
    np.testing.assert_array_equal(permuted.boxes, poses.boxes[order])
    np.testing.assert_array_equal(permuted.box_scores, poses.box_scores[order])
    assert np.abs(poses.scores[0] - poses.scores[1]).max() > 0.1 * np.abs(poses.scores).max()


@pytest.mark.parametrize("batch_size", [3, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 4))])
def test_poses_do_not_depend_on_the_batch_size(net: PoseNet, image: np.ndarray, batch_size: int) -> None:
    poses = PoseEstimator(net, device="cpu")(image, BOXES)
    assert_same_poses(poses, PoseEstimator(net, device="cpu", batch_size=batch_size)(image, BOXES))


def test_the_flip_test_changes_the_scores(net: PoseNet, estimator: PoseEstimator, image: np.ndarray) -> None:
    assert (PoseEstimator(net, device="cpu", flip=False)(image, BOXES).scores != estimator(image, BOXES).scores).any()


def test_images_boxes_and_networks_are_not_changed(net: PoseNet, image: np.ndarray) -> None:
    class WritingDetector:
        def detect(self, image_bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            image_bgr[:] = 0
            return BOXES, np.ones(len(BOXES))

    before, boxes, state = image.copy(), BOXES.copy(), {key: value.clone() for key, value in net.state_dict().items()}
    poses = PoseEstimator(net, device="cpu", detector=WritingDetector())(image)
    poses.boxes[:] = 0
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(BOXES, boxes)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_a_network_in_training_mode_is_used_in_evaluation_mode(image: np.ndarray, net: PoseNet) -> None:
    training = create_model(net.name, input_size=net.input_size, depth=0.34)
    training.load_state_dict(net.state_dict())
    training.train()
    poses = PoseEstimator(training, device="cpu")(image, BOXES)
    assert training.training
    assert_same_poses(PoseEstimator(net, device="cpu")(image, BOXES), poses)


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4))])
def test_zero_boxes_give_zero_poses(net: PoseNet, image: np.ndarray, boxes: list) -> None:
    poses = PoseEstimator(net, device="cpu", detector="full-image")(image, boxes)
    assert len(poses) == 0
    assert poses.keypoints.shape == (0, 17, 2)
    assert poses.scores.shape == (0, 17)
    assert poses.boxes.shape == (0, 4)
    assert poses.box_scores.shape == (0,)
    np.testing.assert_array_equal(poses.draw(image), image)


def test_the_detector_runs_only_without_boxes(dot_net: PoseNet, image: np.ndarray) -> None:
    inputs = []

    class Half:
        def detect(self, image_bgr: np.ndarray) -> tuple[list, list]:
            inputs.append(image_bgr)
            return [[0, 0, 100, 150]], [0.75]

    estimator = PoseEstimator(dot_net, device="cpu", detector=Half())
    estimator(image, BOXES)
    assert not inputs
    poses = estimator(image)
    np.testing.assert_array_equal(inputs[0], image)
    assert poses.boxes.tolist() == [[0, 0, 100, 150]]
    assert poses.box_scores.tolist() == [0.75]


def test_invalid_boxes_are_dropped_from_detectors_and_rejected_from_calls(net: PoseNet, image: np.ndarray) -> None:
    detected = [[-10, 0, 100, 150], [np.nan, 0, 50, 50], [300, 0, 400, 100], [60, 20, 20, 90]]

    class InvalidDetector:
        def detect(self, image_bgr: np.ndarray) -> tuple[list, list]:
            return detected, [0.9, 0.8, 0.7, np.nan]

    estimator = PoseEstimator(net, device="cpu", detector=InvalidDetector())
    assert estimator.dropped_boxes == {}
    with pytest.warns(UserWarning, match="InvalidDetector") as caught:
        poses, again = estimator(image), estimator(image)
    assert len(caught) == 1
    assert poses.boxes.tolist() == again.boxes.tolist() == [[0, 0, 100, 150]]
    assert sum(estimator.dropped_boxes.values()) == 6
    assert_same_poses(PoseEstimator(net, device="cpu")(image, [[0, 0, 100, 150]]), poses)
    with pytest.raises(ValueError, match="box 1 "):
        estimator(image, detected)


def test_full_image_is_the_box_of_the_image(net: PoseNet, estimator: PoseEstimator, image: np.ndarray) -> None:
    poses = PoseEstimator(net, device="cpu", detector="full-image")(image)
    assert_same_poses(estimator(image, [[0, 0, 200, 150]]), poses)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (3, 1)])
def test_images_of_a_few_pixels_have_a_full_image_box(dot_net: PoseNet, height: int, width: int) -> None:
    image = np.full((height, width, 3), 128, dtype=np.uint8)
    estimator = PoseEstimator(dot_net, device="cpu", detector="full-image")
    poses = estimator(image)
    assert poses.boxes.tolist() == [[0, 0, width, height]]
    np.testing.assert_array_equal(estimator(image, boxes=[[0, 0, width, height]]).keypoints, poses.keypoints)
    assert poses.draw(image).shape == image.shape


def test_without_boxes_and_detector_the_error_names_both(estimator: PoseEstimator, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"boxes=.*detector='full-image'"):
        estimator(image)
    with pytest.raises(ValueError, match="box_scores"):
        estimator(image, box_scores=[1.0])


def test_the_default_detector_is_created_at_the_first_image_without_boxes(
    net: PoseNet, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = []

    def create_detector(detector: str, device: str, threshold: float) -> object:
        created.append((detector, device))
        return FullImageDetector()

    monkeypatch.setattr("posedy.inference.estimator.create_detector", create_detector)
    estimator = PoseEstimator(net, device="cpu")
    estimator(image, BOXES)
    assert not created
    assert estimator(image).boxes.tolist() == [[0, 0, 200, 150]]
    np.testing.assert_array_equal(estimator.detect(image)[0], [[0, 0, 200, 150]])
    assert created == [("posedy", "cpu")]


def test_invalid_images_and_boxes_are_rejected(estimator: PoseEstimator, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="box 0"):
        estimator(image, [[50, 60, 20, 30]])
    with pytest.raises(ValueError, match="uint8"):
        estimator(image.astype(np.float32), BOXES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="40000 x 2"):
        estimator(np.zeros((2, 40000), dtype=np.uint8), BOXES)


@pytest.mark.parametrize("batch_size", [3, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 32))])
def test_poses_of_a_list_equal_those_of_each_image(net: PoseNet, image: np.ndarray, batch_size: int) -> None:
    estimator = PoseEstimator(net, device="cpu", detector="full-image", batch_size=batch_size)
    images = [image, image[:100, ::-1], Image.fromarray(image[:, :120]), image]
    boxes = [BOXES, None, BOXES[:0], BOXES[:1]]
    scores = [[0.1, 0.2, 0.3, 0.4], None, None, [0.5]]
    results = estimator(images, boxes, scores)
    assert isinstance(results, list)
    assert [len(poses) for poses in results] == [4, 1, 0, 1]
    for poses, one, its_boxes, its_scores in zip(results, images, boxes, scores, strict=True):
        expected = estimator(one, its_boxes, its_scores)
        assert_same_poses(expected, poses) if len(poses) else None
        np.testing.assert_array_equal(poses.boxes, expected.boxes)
        np.testing.assert_array_equal(poses.box_scores, expected.box_scores)
    for poses, one in zip(estimator(tuple(images)), images, strict=True):
        assert_same_poses(estimator(one), poses)


def test_a_list_of_images_may_be_empty_and_have_a_channel_order(estimator: PoseEstimator, image: np.ndarray) -> None:
    assert estimator([]) == []
    (poses,) = estimator([image], [BOXES], channels="rgb")
    assert poses.channels == "rgb"
    assert_same_poses(estimator(image, BOXES, channels="rgb"), poses)


def test_errors_of_a_list_name_the_image(estimator: PoseEstimator, image: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image 1 of 3.*box 2 "):
        estimator([image] * 3, [BOXES, [[0, 0, 9, 9], [0, 0, 9, 9], [5, 5, 5, 9]], BOXES])
    with pytest.raises(ValueError, match=r"image 0 of 2.*boxes"):
        estimator([image, image], [None, BOXES])
    with pytest.raises(OSError, match=r"image 1 of 2.*absent\.jpg"):
        estimator([image, tmp_path / "absent.jpg"], [BOXES, BOXES])
    with pytest.raises(TypeError, match=r"image 1 of 2.*int"):
        estimator([image, 3], [BOXES, BOXES])  # type: ignore[list-item]


def test_any_valueerror_of_a_detector_names_the_image(dot_net: PoseNet, image: np.ndarray) -> None:
    class RemoteDetector:
        def detect(self, image_bgr: np.ndarray) -> tuple[list, list]:
            return json.loads("not JSON")

    with pytest.raises(ValueError, match=r"image 0 of 2.*Expecting value"):
        PoseEstimator(dot_net, device="cpu", detector=RemoteDetector())([image, image])


@pytest.mark.parametrize("name", ["boxes", "box_scores"])
def test_the_lists_of_images_and_boxes_have_one_length(estimator: PoseEstimator, image: np.ndarray, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} .*2.*1"):
        estimator([image, image], **{"boxes": [BOXES, BOXES], name: [BOXES[:, 0]]})


def test_a_tensor_is_drawn_as_a_tensor(estimator: PoseEstimator, image: np.ndarray) -> None:
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    drawn = estimator(tensor, BOXES).draw(tensor)
    assert (drawn.dtype, drawn.shape) == (torch.uint8, (3, 150, 200))
    expected = estimator(image, BOXES, channels="rgb").draw(image)
    np.testing.assert_array_equal(drawn.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("suffix", [pytest.param(".pt", marks=pytest.mark.slow), ".safetensors"])
def test_files_have_the_poses_of_their_network(net: PoseNet, image: np.ndarray, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save({"network": network_state(net)}, path)
    else:
        save_weights(net, path)
    expected = PoseEstimator(net, device="cpu")(image, BOXES)
    for model in (path, str(path)):
        assert_same_poses(expected, PoseEstimator(model, device="cpu")(image, BOXES))


def test_threads_may_share_an_estimator(estimator: PoseEstimator, image: np.ndarray) -> None:
    expected = [estimator(image, BOXES[: 1 + index % 4]) for index in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda index: estimator(image, BOXES[: 1 + index % 4]), range(8)))
    for poses, others in zip(expected, results, strict=True):
        assert_same_poses(poses, others)


def test_a_network_without_skeleton_needs_flip_false(image: np.ndarray) -> None:
    network = create_model("mobilenetv2_035-bneck", num_keypoints=5, input_size=(64, 64))
    with pytest.raises(ValueError, match="flip=False, --no-flip"):
        PoseEstimator(network, device="cpu")
    poses = PoseEstimator(network, device="cpu", flip=False)(image, BOXES)
    assert poses.keypoints.shape == (4, 5, 2)
    assert list(poses.to_records()[0]["keypoints"]) == [f"keypoint_{index}" for index in range(5)]


def test_unknown_models_are_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'posy'.*balanced.*mobilenetv2_100-fpn"):
        PoseEstimator("posy")
    with pytest.raises(ValueError, match=r"mobilenetv2_035-bneck.*create_model"):
        PoseEstimator("mobilenetv2_035-bneck")
    with pytest.raises(OSError, match=r"absent\.pt"):
        PoseEstimator(tmp_path / "absent.pt")
    with pytest.raises(TypeError, match="int"):
        PoseEstimator(3)  # type: ignore[arg-type]


def test_pretrained_networks_are_found_by_name(
    net: PoseNet, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(net, tmp_path / "small.safetensors")
    monkeypatch.setattr("posedy.models.registry.WEIGHTS_FOLDER", tmp_path)
    expected = PoseEstimator(net, device="cpu")(image, BOXES)
    assert_same_poses(expected, PoseEstimator("small", device="cpu")(image, BOXES))
    with pytest.raises(ValueError, match=r"'large'.*small"):
        PoseEstimator("large")


def test_invalid_arguments_are_rejected(dot_net: PoseNet) -> None:
    with pytest.raises(ValueError, match="'gpu'"):
        PoseEstimator(dot_net, device="gpu")
    with pytest.raises(ValueError, match="cuda:99"):
        PoseEstimator(dot_net, device="cuda:99")
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        PoseEstimator(dot_net, batch_size=0)
    with pytest.raises(ValueError, match=r"'yolo'.*registered"):
        PoseEstimator(dot_net, detector="yolo")
    for detector in (3, FullImageDetector):
        with pytest.raises(TypeError, match="detect"):
            PoseEstimator(dot_net, detector=detector)  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_and_cpu_agree(dot_net: PoseNet, image: np.ndarray) -> None:
    on_gpu = PoseEstimator(dot_net, device="auto")
    assert on_gpu.device.type == "cuda"
    assert_same_poses(PoseEstimator(dot_net, device="cpu")(image, BOXES), on_gpu(image, BOXES))


@pytest.mark.realdata
def test_poses_of_real_images_with_the_pretrained_network(real_data: Path) -> None:
    boxes_by_name = read_boxes_by_name(real_data / "coco/annotations/person_keypoints_val2017.json").by_name
    crowded = [name for name, (boxes, _) in sorted(boxes_by_name.items()) if len(boxes) == 4][:1]
    estimator = PoseEstimator(device="cpu")
    for name in crowded:
        path = real_data / "coco/val2017" / name
        boxes = boxes_by_name[name][0]
        array = cv2.imread(str(path))
        before, poses = array.copy(), estimator(path, boxes)
        for image in (Image.open(path), array):
            np.testing.assert_array_equal(estimator(image, boxes).keypoints, poses.keypoints)
        np.testing.assert_array_equal(array, before)
        padded = np.pad(array, ((40, 8), (24, 16), (0, 0)))
        assert_same_poses(poses, estimator(padded, boxes + np.float32([24, 40, 24, 40])), shift=(24, 40))
        order = [2, 0, 3, 1]
        assert_same_poses(poses[order], estimator(path, boxes[order]))


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 1.5}, {"batch_size": "3"}, {"batch_size": True}, {"flip": "no"}, {"flip": None}]
)
def test_arguments_of_another_type_are_rejected(dot_net: PoseNet, arguments: dict) -> None:
    with pytest.raises(TypeError, match=next(iter(arguments))):
        PoseEstimator(dot_net, device="cpu", detector=None, **arguments)


@pytest.mark.parametrize("boxes", [3, {0: BOXES, 1: BOXES}, iter([BOXES, BOXES]), "ab"])
def test_boxes_of_several_images_are_a_list(estimator: PoseEstimator, boxes: object) -> None:
    images = [np.zeros((240, 200, 3), np.uint8)] * 2
    with pytest.raises(TypeError, match="boxes for each of 2 images"):
        estimator(images, boxes)  # type: ignore[arg-type]


def test_boxes_may_be_tensors_with_gradients(estimator: PoseEstimator) -> None:
    image = np.zeros((240, 200, 3), np.uint8)
    poses = estimator(image, torch.tensor(BOXES, requires_grad=True), torch.ones(4, requires_grad=True))
    assert (poses.boxes == BOXES).all()


@pytest.mark.parametrize("source", ["image.jpg", None, np.zeros((5, 5)), np.zeros((0, 5, 3), np.uint8)])
def test_images_to_detect_on_are_checked(dot_net: PoseNet, source: object) -> None:
    estimator = PoseEstimator(dot_net, device="cpu", detector="full-image")
    with pytest.raises((TypeError, ValueError), match=r"\(H, W, 3\) uint8"):
        estimator.detect(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("returned", [None, np.zeros((1, 4)), (np.zeros((0, 4)),), {"boxes": [], "scores": []}])
def test_detectors_without_boxes_and_scores_are_named(dot_net: PoseNet, returned: object) -> None:
    class Odd(FullImageDetector):
        def detect(self, image_bgr: np.ndarray) -> object:  # type: ignore[override]
            return returned

    with pytest.raises(TypeError, match="Odd"):
        PoseEstimator(dot_net, device="cpu", detector=Odd())(np.zeros((60, 60, 3), np.uint8))


def test_track_checks_its_arguments(dot_net: PoseNet, tmp_path: Path) -> None:
    estimator = PoseEstimator(dot_net, device="cpu", detector="full-image")
    frames = [np.zeros((60, 60, 3), np.uint8)]
    for rate in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="rate"):
            estimator.track(frames, rate=rate)
    for source in (None, 3.5, True):
        with pytest.raises(TypeError, match=f"number of a camera.* {type(source).__name__}"):
            estimator.track(source)  # type: ignore[arg-type]
    for smooth in ("none", 1, None):
        with pytest.raises(TypeError, match=f"{smooth!r}.*smooth_tracks"):
            estimator.track(frames, smooth=smooth)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="udp://camera"):
        estimator.track("udp://camera")
    for interval in (1.5, "3", None, float("nan")):
        with pytest.raises(TypeError, match="detect_every"):
            estimator.track(frames, detect_every=interval)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="str"):
        next(estimator.track(["a.jpg"]))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="-1"):  # crashes OpenCV
        estimator.track(-1)
