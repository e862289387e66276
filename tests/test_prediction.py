import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from posedy.codecs import MSRACodec
from posedy.models.pose_net import normalize_crops, predict_heatmaps
from posedy.prediction import predict_keypoints
from posedy.skeleton import COCO17

CODEC = MSRACodec((64, 96))


class Recorder:
    """A network that keeps what it was given and answers with random heatmaps, the same for the same images."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.seen: list[Tensor] = []
        self.dtype = dtype

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        assert not torch.is_grad_enabled() or not images.requires_grad
        generator = torch.Generator().manual_seed(int(images.sum() * 1e3) % 2**31)
        return torch.rand(len(images), 17, images.shape[2] // 4, images.shape[3] // 4, generator=generator).to(
            self.dtype
        )


def crops(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(count, 96, 64, 3), dtype=np.uint8)


def test_normalises_as_torchvision_does():
    images = crops(3)
    expected = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )(torch.from_numpy(images).permute(0, 3, 1, 2))
    normalised = normalize_crops(torch.from_numpy(images))
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous()
    torch.testing.assert_close(normalised, expected, rtol=0, atol=1e-5)


def test_without_flip_the_network_is_called_once():
    net = Recorder()
    images = torch.from_numpy(crops())
    heatmaps = predict_heatmaps(net, images, CODEC)
    assert len(net.seen) == 1
    torch.testing.assert_close(net.seen[0], normalize_crops(images), rtol=0, atol=0)
    torch.testing.assert_close(heatmaps, Recorder()(normalize_crops(images)), rtol=0, atol=0)


def test_with_flip_the_mirrored_crops_are_averaged():
    net = Recorder()
    images = torch.from_numpy(crops())
    heatmaps = predict_heatmaps(net, images, CODEC, COCO17.flip_permutation)
    plain, mirrored = net.seen
    torch.testing.assert_close(mirrored, torch.flip(plain, dims=[3]), rtol=0, atol=0)
    expected = CODEC.merge_flipped(Recorder()(plain), Recorder()(mirrored), COCO17.flip_permutation)
    torch.testing.assert_close(heatmaps, expected, rtol=0, atol=0)


@pytest.mark.parametrize("flip_permutation", [None, COCO17.flip_permutation])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keypoints_are_the_decoded_heatmaps(flip_permutation, dtype):
    keypoints, scores = predict_keypoints(Recorder(dtype), crops(), CODEC, flip_permutation)
    heatmaps = predict_heatmaps(Recorder(dtype), torch.from_numpy(crops()), CODEC, flip_permutation)
    assert heatmaps.dtype == torch.float32
    expected_keypoints, expected_scores = CODEC.decode(heatmaps)
    np.testing.assert_array_equal(keypoints, expected_keypoints.numpy())
    np.testing.assert_array_equal(scores, expected_scores.numpy())
    assert keypoints.dtype == scores.dtype == np.float32
    assert keypoints.shape == (2, 17, 2)


def test_keeps_no_gradients():
    weight = torch.ones(17, 3, requires_grad=True)

    def net(images: Tensor) -> Tensor:
        heatmaps = torch.einsum("kc,nchw->nkhw", weight, images[:, :, ::4, ::4])
        assert not heatmaps.requires_grad
        return heatmaps

    keypoints, _ = predict_keypoints(net, crops(), CODEC)
    assert np.isfinite(keypoints).all()


def test_no_crops_give_no_keypoints():
    keypoints, scores = predict_keypoints(Recorder(), crops(0), CODEC, COCO17.flip_permutation)
    assert keypoints.shape == (0, 17, 2)
    assert scores.shape == (0, 17)
