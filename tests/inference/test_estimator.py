from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from posedy.inference.box_files import boxes_from_file
from posedy.inference.estimator import PoseEstimator
from posedy.inference.poses import Poses
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import network_state, save_weights
from posedy.models.registry import create_model

from .conftest import DOT_COLORS

BOXES = np.array([[20, 10, 90, 140], [60.5, 5, 190, 120], [-30, -20, 60, 80], [150, 100, 260, 230]], dtype=np.float32)


@pytest.fixture
def estimator(net: PoseNet) -> PoseEstimator:
    return PoseEstimator(net, device="cpu")


def assert_same_poses(poses: Poses, others: Poses, shift: tuple[int, int] = (0, 0)) -> None:
    assert len(poses) == len(others)
    np.testing.assert_allclose(others.scores, poses.scores, rtol=0, atol=1e-3 * np.abs(poses.scores).max())
    # of two cells of nearly the same height rounding may choose either: not more than a few keypoints
    close = np.abs(others.keypoints - np.float32(shift) - poses.keypoints).max(axis=-1) < 1e-3
    assert close.mean() > 0.9


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_finds_dots_where_they_are(dot_net: PoseNet, flip: bool, scale: float) -> None:
    rng = np.random.default_rng(1)
    image = np.full((int(300 * scale), int(400 * scale), 3), 200, dtype=np.uint8)
    boxes = np.array([[20, 30, 140, 190], [200, 60, 390, 240]]) * scale
    truth = np.stack([rng.uniform(box[:2] + 10 * scale, box[2:] - 10 * scale, (3, 2)) for box in boxes])
    for person in truth:
        for (x, y), color in zip(person, DOT_COLORS, strict=True):
            center = (round(x * 16), round(y * 16))
            cv2.circle(image, center, round(7 * scale * 16), color[::-1], cv2.FILLED, cv2.LINE_AA, 4)
    poses = PoseEstimator(dot_net, device="cpu", flip=flip)(image, boxes)
    # a cell of the larger crop is 190 * 1.25 / 24 pixels; decoding is good to a quarter of it, the flip shift another
    cell = 190 * 1.25 * scale / 24
    assert np.abs(poses.keypoints - truth).max() < 0.5 * cell
    assert poses.keypoints.dtype == poses.scores.dtype == poses.boxes.dtype == poses.box_scores.dtype == np.float32
    assert poses.skeleton == dot_net.skeleton


def test_path_pil_and_array_give_the_same(estimator: PoseEstimator, photo: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    poses = estimator(photo[..., ::-1], BOXES)
    for image in (path, str(path), Image.open(path)):
        others = estimator(image, BOXES)
        np.testing.assert_array_equal(others.keypoints, poses.keypoints)
        np.testing.assert_array_equal(others.scores, poses.scores)


def test_colors_matter(estimator: PoseEstimator, photo: np.ndarray) -> None:
    assert (estimator(photo, BOXES).scores != estimator(photo[..., ::-1], BOXES).scores).any()


def test_poses_remember_the_channel_order(estimator: PoseEstimator, photo: np.ndarray) -> None:
    bgr = np.ascontiguousarray(photo[..., ::-1])
    drawn = estimator(bgr, BOXES).draw(bgr)
    np.testing.assert_array_equal(estimator(photo, BOXES, channels="rgb").draw(photo), drawn[..., ::-1])


def test_gray_equals_three_gray_channels(estimator: PoseEstimator, photo: np.ndarray) -> None:
    gray = photo[..., 1]
    assert_same_poses(estimator(gray, BOXES), estimator(np.stack([gray] * 3, axis=-1), BOXES))


def test_padding_the_photo_shifts_the_keypoints(estimator: PoseEstimator, photo: np.ndarray) -> None:
    padded = np.pad(photo, ((40, 8), (24, 16), (0, 0)))
    assert_same_poses(estimator(photo, BOXES), estimator(padded, BOXES + [24, 40, 24, 40]), shift=(24, 40))  # noqa: RUF005


def test_permuting_boxes_permutes_poses(estimator: PoseEstimator, photo: np.ndarray) -> None:
    order = [2, 0, 3, 1]
    poses = estimator(photo, BOXES, box_scores=[0.1, 0.2, 0.3, 0.4])
    permuted = estimator(photo, BOXES[order], box_scores=np.array([0.1, 0.2, 0.3, 0.4])[order])
    expected = Poses(poses.keypoints[order], poses.scores[order], BOXES, poses.box_scores, poses.skeleton)
    assert_same_poses(expected, permuted)
    np.testing.assert_array_equal(permuted.boxes, poses.boxes[order])
    np.testing.assert_array_equal(permuted.box_scores, poses.box_scores[order])
    assert np.abs(poses.scores[0] - poses.scores[1]).max() > 0.1 * np.abs(poses.scores).max()


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_batch_size_does_not_matter(net: PoseNet, photo: np.ndarray, batch_size: int) -> None:
    poses = PoseEstimator(net, device="cpu")(photo, BOXES)
    assert_same_poses(poses, PoseEstimator(net, device="cpu", batch_size=batch_size)(photo, BOXES))


def test_flip_changes_the_poses(net: PoseNet, estimator: PoseEstimator, photo: np.ndarray) -> None:
    assert (PoseEstimator(net, device="cpu", flip=False)(photo, BOXES).scores != estimator(photo, BOXES).scores).any()


def test_nothing_given_is_modified(net: PoseNet, photo: np.ndarray) -> None:
    class Vandal:
        def detect(self, image_bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            image_bgr[:] = 0
            return BOXES, np.ones(len(BOXES))

    image, boxes, state = photo.copy(), BOXES.copy(), {key: value.clone() for key, value in net.state_dict().items()}
    poses = PoseEstimator(net, device="cpu", detector=Vandal())(image)
    poses.boxes[:] = 0
    np.testing.assert_array_equal(image, photo)
    np.testing.assert_array_equal(BOXES, boxes)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_the_network_given_keeps_its_mode_and_is_used_in_evaluation_mode(photo: np.ndarray, net: PoseNet) -> None:
    training = create_model(net.name, input_size=net.input_size)
    training.load_state_dict(net.state_dict())
    training.train()
    poses = PoseEstimator(training, device="cpu")(photo, BOXES)
    assert training.training
    assert_same_poses(PoseEstimator(net, device="cpu")(photo, BOXES), poses)


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4))])
def test_zero_boxes_give_zero_poses(net: PoseNet, photo: np.ndarray, boxes: list) -> None:
    poses = PoseEstimator(net, device="cpu", detector="whole")(photo, boxes)
    assert len(poses) == 0
    assert poses.keypoints.shape == (0, 17, 2)
    assert poses.scores.shape == (0, 17)
    assert poses.boxes.shape == (0, 4)
    assert poses.box_scores.shape == (0,)
    np.testing.assert_array_equal(poses.draw(photo), photo)


def test_a_detector_is_asked_only_without_boxes(net: PoseNet, photo: np.ndarray) -> None:
    asked = []

    class Half:
        def detect(self, image_bgr: np.ndarray) -> tuple[list, list]:
            asked.append(image_bgr)
            return [[0, 0, 100, 150]], [0.75]

    estimator = PoseEstimator(net, device="cpu", detector=Half())
    estimator(photo, BOXES)
    assert not asked
    poses = estimator(photo)
    np.testing.assert_array_equal(asked[0], photo)
    assert poses.boxes.tolist() == [[0, 0, 100, 150]]
    assert poses.box_scores.tolist() == [0.75]


def test_a_detector_s_bad_boxes_are_dropped_and_a_user_s_are_rejected(net: PoseNet, photo: np.ndarray) -> None:
    found = [[-10, 0, 100, 150], [np.nan, 0, 50, 50], [300, 0, 400, 100], [60, 20, 20, 90]]

    class Flawed:
        def detect(self, image_bgr: np.ndarray) -> tuple[list, list]:
            return found, [0.9, 0.8, 0.7, np.nan]

    estimator = PoseEstimator(net, device="cpu", detector=Flawed())
    assert estimator.dropped_boxes == {}
    with pytest.warns(UserWarning, match="Flawed") as caught:
        poses, again = estimator(photo), estimator(photo)
    assert len(caught) == 1
    assert poses.boxes.tolist() == again.boxes.tolist() == [[0, 0, 100, 150]]
    assert sum(estimator.dropped_boxes.values()) == 6
    assert_same_poses(PoseEstimator(net, device="cpu")(photo, [[0, 0, 100, 150]]), poses)
    with pytest.raises(ValueError, match="box 1 "):
        estimator(photo, found)


def test_whole_is_the_whole_photo(net: PoseNet, estimator: PoseEstimator, photo: np.ndarray) -> None:
    poses = PoseEstimator(net, device="cpu", detector="whole")(photo)
    assert_same_poses(estimator(photo, [[0, 0, 200, 150]]), poses)


def test_without_boxes_or_detector_the_ways_are_named(estimator: PoseEstimator, photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"boxes=.*detector='whole'.*detect\(image_bgr\)"):
        estimator(photo)
    with pytest.raises(ValueError, match="box_scores came without boxes"):
        estimator(photo, box_scores=[1.0])


def test_bad_input_is_refused(estimator: PoseEstimator, photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match="box 0 has no area"):
        estimator(photo, [[50, 60, 20, 30]])
    with pytest.raises(ValueError, match="uint8"):
        estimator(photo.astype(np.float32), BOXES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"40000x2 pixels.*cut or shrink"):
        estimator(np.zeros((2, 40000), dtype=np.uint8), BOXES)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_give_what_the_network_gives(net: PoseNet, photo: np.ndarray, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save({"network": network_state(net)}, path)
    else:
        save_weights(net, path)
    expected = PoseEstimator(net, device="cpu")(photo, BOXES)
    for model in (path, str(path)):
        assert_same_poses(expected, PoseEstimator(model, device="cpu")(photo, BOXES))


def test_threads_may_share_an_estimator(estimator: PoseEstimator, photo: np.ndarray) -> None:
    expected = [estimator(photo, BOXES[: 1 + index % 4]) for index in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: estimator(photo, BOXES[: 1 + index % 4]), range(8)))
    for poses, others in zip(expected, found, strict=True):
        assert_same_poses(poses, others)


def test_a_network_without_skeleton_needs_flip_off(photo: np.ndarray) -> None:
    network = create_model("mobilenetv2_035-bneck", num_keypoints=5, input_size=(64, 64))
    with pytest.raises(ValueError, match="flip=True needs a skeleton"):
        PoseEstimator(network, device="cpu")
    poses = PoseEstimator(network, device="cpu", flip=False)(photo, BOXES)
    assert poses.keypoints.shape == (4, 5, 2)
    assert list(poses.to_records()[0]["keypoints"]) == [f"keypoint_{index}" for index in range(5)]


def test_unknown_models_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no shipped model is named 'posy'; shipped are: .*path of a \.pt or"):
        PoseEstimator("posy")
    with pytest.raises(ValueError, match=r"mobilenetv2_035-bneck is an architecture: posedy\.create_model"):
        PoseEstimator("mobilenetv2_035-bneck")
    with pytest.raises(OSError, match=r"no checkpoint at .*absent\.pt"):
        PoseEstimator(tmp_path / "absent.pt")
    with pytest.raises(TypeError, match="got int"):
        PoseEstimator(3)  # type: ignore[arg-type]


def test_shipped_models_are_found_by_name(
    net: PoseNet, photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(net, tmp_path / "small.safetensors")
    monkeypatch.setattr("posedy.models.pretrained.FOLDER", tmp_path)
    expected = PoseEstimator(net, device="cpu")(photo, BOXES)
    assert_same_poses(expected, PoseEstimator("small", device="cpu")(photo, BOXES))
    with pytest.raises(ValueError, match="'large'; shipped are: small"):
        PoseEstimator("large")


def test_absent_devices_and_bad_options_are_refused(net: PoseNet) -> None:
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        PoseEstimator(net, device="gpu")
    with pytest.raises(ValueError, match="cuda:99"):
        PoseEstimator(net, device="cuda:99")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        PoseEstimator(net, batch_size=0)
    with pytest.raises(ValueError, match="unknown detector"):
        PoseEstimator(net, detector="yolo")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_and_cpu_agree(dot_net: PoseNet, photo: np.ndarray) -> None:
    on_gpu = PoseEstimator(dot_net, device="auto")
    assert on_gpu.device.type == "cuda"
    assert_same_poses(PoseEstimator(dot_net, device="cpu")(photo, BOXES), on_gpu(photo, BOXES))


@pytest.mark.realdata
def test_the_same_holds_on_real_photos_with_the_shipped_network(real_data: Path) -> None:
    boxes = boxes_from_file(real_data / "coco/annotations/person_keypoints_val2017.json").by_name
    crowded = [name for name, (found, _) in sorted(boxes.items()) if len(found) == 4][:2]
    estimator = PoseEstimator(device="cpu")
    for name in crowded:
        path = real_data / "coco/val2017" / name
        found = boxes[name][0]
        array = cv2.imread(str(path))
        before, poses = array.copy(), estimator(path, found)
        for image in (Image.open(path), array):
            np.testing.assert_array_equal(estimator(image, found).keypoints, poses.keypoints)
        np.testing.assert_array_equal(array, before)
        padded = np.pad(array, ((40, 8), (24, 16), (0, 0)))
        assert_same_poses(poses, estimator(padded, found + np.float32([24, 40, 24, 40])), shift=(24, 40))
        order = [2, 0, 3, 1]
        permuted = Poses(poses.keypoints[order], poses.scores[order], found, poses.box_scores, poses.skeleton)
        assert_same_poses(permuted, estimator(path, found[order]))
