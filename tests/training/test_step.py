"""Training step: gradient accumulation, gradient clipping, frozen batch norm and learning rate factors."""

import pytest
import torch

from posedy.codecs import MSRACodec
from posedy.config import TrainConfig
from posedy.models.factory import create_model
from posedy.models.pose_net import HeatmapOutput, PoseNet
from posedy.training.distributed import DistributedContext
from posedy.training.optim import make_optimizer
from posedy.training.step import PoseStep

CODEC = MSRACodec((32, 64))


def batch(size: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labeled = torch.rand(size, 17, generator=generator) < 0.7
    labeled[0] = False
    return {
        "crop": torch.randint(0, 256, (size, 64, 32, 3), generator=generator, dtype=torch.uint8),
        "keypoints": torch.rand(size, 17, 2, generator=generator) * torch.tensor([32.0, 64.0]),
        "labeled": labeled,
    }


def make_step(output: HeatmapOutput = "linear", **settings: object) -> tuple[PoseNet, PoseStep]:
    torch.manual_seed(0)
    net = create_model("dy_mobilenetv2_035-fpn", input_size=(32, 64), output=output, depth=0.34)
    with torch.no_grad():
        net.head.heatmap.weight.mul_(1000)
    config = TrainConfig.model_validate({"batch_size": 6, **settings})
    step = PoseStep(net, make_optimizer(net, config), None, CODEC, config, DistributedContext(config))
    step.set_train_mode()
    return net, step


def test_without_autocast_disables_autocast_only_in_its_block() -> None:
    net, step = make_step(precision="bf16")
    net.eval()
    x = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), step.without_autocast():
        exact = net(x)
    torch.testing.assert_close(exact, PoseNet.forward(net, x), rtol=0, atol=0)
    assert not torch.equal(net(x), exact)


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ("mse", "linear"),
        *(
            pytest.param(loss, output, marks=pytest.mark.slow)
            for loss, output in (("cross_entropy", "softmax"), ("binary_cross_entropy", "sigmoid"))
        ),
    ],
)
def test_accumulation_gives_gradients_of_the_whole_batch(
    loss: str, output: HeatmapOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm is frozen, since it alone depends on the split; micro-batches have different numbers of labels."""
    results = []
    for accumulation in (1, 2, 4):
        net, step = make_step(output, loss=loss, accumulation=accumulation, freeze_batch_norm=True)
        gradients: dict[str, torch.Tensor] = {}

        # gradients instead of updated weights: Adam's first update is the sign of a gradient, however small
        def record_gradients(net: PoseNet = net, gradients: dict[str, torch.Tensor] = gradients) -> None:
            gradients |= {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}

        monkeypatch.setattr(step.optimizer, "step", record_gradients)
        results.append((float(step(batch(), 6, 1e-3)), gradients))
    (loss_value, whole), *others = results
    total_norm = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    assert total_norm > 0
    for other, gradients in others:
        assert other == pytest.approx(loss_value, rel=1e-5)
        assert gradients.keys() == whole.keys()
        for name, gradient in gradients.items():
            error = (gradient - whole[name]).norm()
            assert error < 1e-2 * whole[name].norm() + 1e-5 * total_norm, name


def test_clip_gradients_limits_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    for limit in (None, 1e-3):
        net, step = make_step(clip_gradients=limit)

        def record_norm(net: PoseNet = net) -> None:
            norms.append(float(torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()))

        monkeypatch.setattr(step.optimizer, "step", record_norm)
        step(batch(), 6, 1e-3)
    assert norms[0] > 2e-3
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_freeze_batch_norm_keeps_running_statistics() -> None:
    for frozen in (True, False):
        net, step = make_step(freeze_batch_norm=frozen)
        before = {name: tensor.clone() for name, tensor in net.named_buffers()}
        step(batch(), 6, 1e-3)
        same = all(torch.equal(tensor, before[name]) for name, tensor in net.named_buffers())
        assert same == frozen


def test_zero_learning_rate_keeps_the_weights() -> None:
    net, step = make_step()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    step(batch(), 6, 0.0)
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_learning_rate_factors_scale_updates_and_0_freezes() -> None:
    net, step = make_step(lr_factors={"backbone": 0.1, "backbone.stem": 0})
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    step(batch(), 6, 1e-3)
    changes = {
        name: float((tensor.float() - before[name].float()).abs().max()) for name, tensor in net.state_dict().items()
    }
    assert all(change == 0 for name, change in changes.items() if name.startswith("backbone.stem."))
    # Adam's first step is the learning rate wherever there is a gradient
    assert changes["backbone.blocks.3.expand.1.bias"] == pytest.approx(1e-4, rel=0.01)
    assert changes["head.heatmap.bias"] == pytest.approx(1e-3, rel=0.01)
    assert changes["backbone.blocks.3.expand.1.running_mean"] > 0
