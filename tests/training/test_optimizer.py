"""Optimizer: Adam by default, weight decay of kernels only, learning rate factors."""

import pytest
import torch

from posedy.config import ClassifierTrainConfig, TrainConfig
from posedy.models.factory import create_model
from posedy.training.optim import make_optimizer, split_parameters

NAME = "dy_mobilenetv3_small-dy_bneck"


def test_weight_decay_applies_to_kernels_only() -> None:
    net = create_model(NAME)
    decayed, undecayed = split_parameters(net)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert len(decayed) + len(undecayed) == len(names)
    for parameter in decayed:
        name = names[id(parameter)]
        assert name.endswith("weight")
        assert parameter.ndim >= 2
        assert "attention" not in name
    # static and dynamic convolutions
    shapes = {parameter.ndim for parameter in decayed}
    assert shapes >= {4, 5}
    assert any("attention" in names[id(parameter)] for parameter in undecayed)
    for parameter in undecayed:
        name = names[id(parameter)]
        assert name.endswith("bias") or parameter.ndim == 1 or "attention" in name


def test_without_weight_decay_it_equals_adam_exactly() -> None:
    nets = [create_model("dy_mobilenetv2_035-fpn", input_size=(32, 64), depth=0.34) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [make_optimizer(nets[0], TrainConfig()), torch.optim.Adam(nets[1].parameters(), lr=1e-3, fused=True)]
    x = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for net, optimizer in zip(nets, optimizers, strict=True):
            net.train()(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_weight_decay_is_decoupled_from_the_gradient() -> None:
    net = create_model("dy_mobilenetv2_035-fpn", input_size=(32, 64), depth=0.34)
    optimizer = make_optimizer(net, TrainConfig(weight_decay=0.5, lr=0.1))
    before = [parameter.detach().clone() for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = len(optimizer.param_groups[0]["params"])
    after = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        torch.testing.assert_close(new.detach(), old * (1 - 0.1 * 0.5) if index < decayed else old)


def test_sgd_has_a_momentum_of_09() -> None:
    net = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(net, ClassifierTrainConfig(optimizer="sgd", lr=0.1, weight_decay=0))
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    gradients = {name: torch.randn_like(value) for name, value in before.items()}
    for total in (1.0, 1.0 + 1.9, 1.0 + 1.9 + 2.71):
        for name, parameter in net.named_parameters():
            parameter.grad = gradients[name].clone()
        optimizer.step()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * total * gradients[name])


def test_longest_module_name_sets_the_learning_rate_factor() -> None:
    net = create_model("dy_mobilenetv2_035-dy_fpn")
    optimizer = make_optimizer(net, TrainConfig(lr_factors={"backbone": 0.3, "backbone.stem": 0, "head.heatmap": 2}))
    factor_of = {parameter: group["lr_factor"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in net.named_parameters():
        if name.startswith("backbone.stem."):
            assert parameter not in factor_of
            assert not parameter.requires_grad
        else:
            expected = 2 if name.startswith("head.heatmap.") else 0.3 if name.startswith("backbone.") else 1
            assert factor_of[parameter] == expected, name
            assert parameter.requires_grad
    assert {(group["lr_factor"], group["weight_decay"]) for group in optimizer.param_groups} == {
        (2, 0),
        (1, 0),
        (0.3, 0),
    }


def test_attention_has_a_learning_rate_factor_of_its_own() -> None:
    net = create_model("dy_mobilenetv2_035-dy_fpn")
    optimizer = make_optimizer(net, TrainConfig(attention_lr_factor=10, lr_factors={"backbone": 0.5}))
    factor_of = {parameter: group["lr_factor"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in net.named_parameters():
        of_module = 0.5 if name.startswith("backbone.") else 1
        assert factor_of[parameter] == of_module * (10 if ".attention." in name else 1), name


def test_without_factors_there_are_two_groups_as_in_older_checkpoints() -> None:
    optimizer = make_optimizer(create_model("mobilenetv2_035-bneck"), TrainConfig(weight_decay=0.1))
    assert [(group["lr_factor"], group["weight_decay"]) for group in optimizer.param_groups] == [(1, 0.1), (1, 0)]


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"bakbone": 1}, "no module 'bakbone'; nearest are backbone, head, output"),
        ({"head.hidn": 1}, "no module 'head.hidn'; nearest are laterals, upsample, blocks, hidden, heatmap"),
        ({"": 1}, "no module ''"),
        ({"backbone": 0, "head": 0}, "freezes the whole network"),
    ],
)
def test_factors_of_unknown_modules_are_rejected(factors: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_optimizer(create_model("mobilenetv2_035-fpn"), TrainConfig(lr_factors=factors))
