import numpy as np

from tools.lab.synthetic.video import generate_video


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
