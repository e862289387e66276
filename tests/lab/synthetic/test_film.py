import numpy as np

from tools.lab.synthetic.film import draw_film


def test_a_film_is_its_seed_s_and_people_move_smoothly_and_cross() -> None:
    film, again = list(draw_film(3, 120, 3, (160, 90))), list(draw_film(3, 2, 3, (160, 90)))
    for frame, other in zip(film, again, strict=False):
        assert np.array_equal(frame.image, other.image)
        assert np.array_equal(frame.keypoints, other.keypoints)
    keypoints = np.stack([frame.keypoints for frame in film])
    assert keypoints.shape == (120, 3, 17, 2)
    steps = np.linalg.norm(np.diff(keypoints, axis=0), axis=-1)
    assert 0.2 < steps.mean() < 3
    assert steps.max() < 8
    middles = keypoints[..., 0].mean(axis=2)
    orders = np.argsort(middles, axis=1)
    assert (np.diff(orders, axis=0) != 0).any()


def test_boxes_hold_the_people() -> None:
    for frame in draw_film(0, 3, 5, (320, 180)):
        assert frame.image.shape == (180, 320, 3)
        assert (frame.keypoints.min(axis=1) >= frame.boxes[:, :2]).all()
        assert (frame.keypoints.max(axis=1) <= frame.boxes[:, 2:]).all()
        assert (frame.boxes[:, :2] >= 0).all()
        assert (frame.boxes[:, 2:] <= [320, 180]).all()
