import numpy as np
import pytest

from tools.lab.synthetic.video import generate_video


@pytest.mark.slow
def test_video_depends_on_the_seed_and_people_move_smoothly_and_cross() -> None:
    video, again = list(generate_video(3, 120, 3, (160, 90))), list(generate_video(3, 2, 3, (160, 90)))
    for frame, other in zip(video, again, strict=False):
        assert np.array_equal(frame.image, other.image)
        assert np.array_equal(frame.keypoints, other.keypoints)
    keypoints = np.stack([frame.keypoints for frame in video])
    assert keypoints.shape == (120, 3, 17, 2)
    steps = np.linalg.norm(np.diff(keypoints, axis=0), axis=-1)
    assert 0.2 < steps.mean() < 3
    assert steps.max() < 8
    centers = keypoints[..., 0].mean(axis=2)
    orders = np.argsort(centers, axis=1)
    assert (np.diff(orders, axis=0) != 0).any()


def test_boxes_contain_the_keypoints() -> None:
    for frame in generate_video(0, 3, 5, (320, 180)):
        assert frame.image.shape == (180, 320, 3)
        assert (frame.keypoints.min(axis=1) >= frame.boxes[:, :2]).all()
        assert (frame.keypoints.max(axis=1) <= frame.boxes[:, 2:]).all()
        assert (frame.boxes[:, :2] >= 0).all()
        assert (frame.boxes[:, 2:] <= [320, 180]).all()


def test_options_change_the_video_but_not_the_people() -> None:
    size, plain = (160, 90), list(generate_video(0, 6, 3, (160, 90)))
    background = np.zeros((50, 200, 3), np.uint8)
    still = list(generate_video(0, 6, 3, size, background=background))
    blurred = list(generate_video(0, 6, 3, size, exposure=1 / 30))
    moving = list(generate_video(0, 6, 3, size, camera_motion=True))
    for frame, on_background, blur, moved in zip(plain, still, blurred, moving, strict=True):
        np.testing.assert_array_equal(on_background.keypoints, frame.keypoints)
        np.testing.assert_array_equal(blur.keypoints, frame.keypoints)
        assert (on_background.image == 0).mean() > 0.3
        # a camera scales and shifts all people alike
        scale = np.linalg.norm(moved.boxes[0, 2:] - moved.boxes[0, :2]) / np.linalg.norm(
            frame.boxes[0, 2:] - frame.boxes[0, :2]
        )
        offsets = moved.keypoints - scale * frame.keypoints
        assert np.ptp(offsets.reshape(-1, 2), axis=0).max() < 1e-6
    assert np.abs(moving[5].keypoints - moving[0].keypoints - plain[5].keypoints + plain[0].keypoints).max() > 1
    gradient = [np.abs(np.diff(frame.image.astype(float), axis=1)).mean() for frame in (blurred[5], plain[5])]
    assert gradient[0] < gradient[1]


def test_people_leave_and_may_wear_the_same_clothes() -> None:
    frames = list(generate_video(0, 24, 2, (64, 36), rate=2, leaving=True, same_outfit=True))
    left, right = (np.stack([frame.boxes[:, side] for frame in frames]) for side in (0, 2))
    is_outside = (right < 0) | (left > 64)
    assert is_outside.any(axis=0).tolist() == [True, False]
    assert not is_outside[:, 0].all()
    other = next(generate_video(0, 1, 2, (64, 36), rate=2, leaving=True))
    assert not np.array_equal(frames[0].image, other.image)
