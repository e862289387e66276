"""Moving average of the weights: comparison with a plain loop, averaged and copied tensors."""

import torch

from posedy.models.dynamic_conv import set_temperature
from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet
from posedy.training.optim import ModelEMA


def make_net() -> PoseNet:
    return create_model("dy_mobilenetv2_035-fpn", input_size=(32, 64), depth=0.34)


def test_ema_matches_a_plain_loop_with_decay_warmup() -> None:
    net = make_net()
    ema = ModelEMA(net, 0.7)
    expected = {name: tensor.double().clone() for name, tensor in net.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 16):
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point() and tensor.ndim:
                tensor.data.add_(0.1 * torch.randn(tensor.shape, generator=generator))
        ema.update(net)
        decay = min(0.7, (1 + step) / (10 + step))
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim:
                expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    for name, tensor in ema.net.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim:
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-5)
    assert any(name.endswith("running_var") for name in expected)


def test_ema_copies_temperatures_and_counters() -> None:
    net = make_net()
    ema = ModelEMA(net, 0.99)
    set_temperature(net, 7.0)
    net.train()(torch.randn(2, 3, 64, 32))
    ema.update(net)
    state, expected = ema.net.state_dict(), net.state_dict()
    copied = [name for name in state if name.endswith(("temperature", "num_batches_tracked"))]
    assert {name.rpartition(".")[2] for name in copied} == {"temperature", "num_batches_tracked"}
    for name in copied:
        assert torch.equal(state[name], expected[name])
    means = [name for name in state if name.endswith("running_mean") and expected[name].abs().max() > 0]
    assert means
    assert not any(torch.equal(state[name], expected[name]) for name in means)


def test_ema_update_does_not_change_the_network() -> None:
    net = make_net().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    ema = ModelEMA(net, 0.9)
    ema.update(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not ema.net.training
