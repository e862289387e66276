"""Replacing and recording attention, on networks whose attention is sharp."""

import copy
import itertools
import math
from contextlib import ExitStack

import pytest
import torch

from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from posedy.models.registry import create_model
from tools.lab.attention.attention_probe import (
    AGGREGATIONS,
    AttentionLayer,
    attention_layers,
    derangements,
    recorded_attention,
    replaced_attention,
)

NAME = "dy_mobilenetv2_035-dy_bneck"
SIZE = (32, 64)


def crops(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, SIZE[1], SIZE[0], generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def make(perturb):
    """`make(num_kernels=4)`: a network in float64 with sharp attention."""

    def of(num_kernels=4, **options):
        torch.manual_seed(0)
        net = create_model(NAME, 3, num_kernels, input_size=SIZE, **options).double()
        # sigmoid attention has no temperature to sharpen by
        return perturb(net, crops(8)) if options.get("attention") != "sigmoid" else net.eval()

    return of


@pytest.fixture(scope="module")
def net(make):
    return make()


def replaced(net, aggregation, *batches, seed=0):
    """Outputs, and per layer the attention before and after the replacement, over several batches."""
    layers = attention_layers(net)
    with (
        torch.no_grad(),
        recorded_attention(layers) as before,
        replaced_attention(layers, aggregation, seed),
        recorded_attention(layers) as after,
    ):
        outputs = [net(batch) for batch in batches]
    return outputs, [(before.attention(layer), after.attention(layer)) for layer in layers]


def hooks(net):
    return sum(len(module._forward_hooks) for module in net.modules())


def test_attention_is_sharp_enough_to_test_with(net):
    _, pairs = replaced(net, "attention", crops(8))
    largest = [before.amax(dim=1).median() for before, _ in pairs]
    assert sum(value > 0.7 for value in largest) > len(largest) / 2


def test_layers_are_grouped_by_the_stride_of_their_input(net):
    layers = attention_layers(net)
    assert {layer.attention for layer in layers} == {m for m in net.modules() if isinstance(m, KernelAttention)}
    assert all(isinstance(net.get_submodule(layer.name), DynamicConv2d) for layer in layers)
    assert list(dict.fromkeys(layer.group for layer in layers)) == ["2", "4", "8", "16", "32", "head"]
    by_name = {layer.name: layer.group for layer in layers}
    # a convolution of stride 2 still belongs to the finer group
    assert by_name["backbone.blocks.1.depthwise.0"] == "2"
    assert by_name["backbone.blocks.1.project.0"] == "4"
    assert all((layer.group == "head") == layer.name.startswith("head.") for layer in layers)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("mobilenetv2_035-dy_bneck", ["head"]),
        ("dy_resnet18-deconv", ["4", "8", "16", "32"]),
        ("mobilenetv2_035-deconv", []),
    ],
)
def test_only_groups_that_exist(name, groups):
    net = create_model(name, input_size=SIZE, in_channels=1).eval()
    assert list(dict.fromkeys(layer.group for layer in attention_layers(net))) == groups
    assert hooks(net) == 0


def test_training_mode_is_refused(net):
    with pytest.raises(ValueError, match=r"call net.eval\(\)"):
        attention_layers(copy.deepcopy(net).train())


def test_attention_as_it_is_changes_no_bit(net):
    x = crops(3)
    with torch.no_grad():
        plain = net(x)
    (same,), _ = replaced(net, "attention", x)
    assert torch.equal(same, plain)


def test_average_is_the_network_whose_kernels_are_their_mean(net):
    averaged = copy.deepcopy(net)
    with torch.no_grad():
        for layer in averaged.modules():
            if isinstance(layer, DynamicConv2d):
                layer.weight.copy_(layer.weight.mean(dim=0).expand_as(layer.weight))
        expected = averaged(crops(3))
        plain = net(crops(3))
    (found,), pairs = replaced(net, "average", crops(3))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())
    assert (found - plain).abs().max() > 0.1 * plain.abs().max()
    assert all(torch.allclose(after, torch.full_like(after, 0.25)) for _, after in pairs)


def test_switching_off_all_groups_is_the_average(net):
    layers = attention_layers(net)
    x = crops(3)
    (averaged,), _ = replaced(net, "average", x)
    with torch.no_grad(), ExitStack() as groups:
        for group in {layer.group for layer in layers}:
            groups.enter_context(replaced_attention([layer for layer in layers if layer.group == group], "average"))
        assert torch.equal(net(x), averaged)


def test_a_group_switched_off_leaves_the_others_alone(net):
    layers = attention_layers(net)
    off = [layer for layer in layers if layer.group == "16"]
    with torch.no_grad(), replaced_attention(off, "average"), recorded_attention(layers) as record:
        net(crops(4))
    for layer in layers:
        flat = torch.allclose(record.attention(layer), torch.full((4, 4), 0.25, dtype=torch.float64))
        assert flat == (layer.group == "16")


def test_max_gives_all_to_the_largest(net):
    _, pairs = replaced(net, "max", crops(5))
    for before, after in pairs:
        assert torch.equal(after.argmax(dim=1), before.argmax(dim=1))
        torch.testing.assert_close(after.amax(dim=1), torch.ones(5, dtype=torch.float64))
        assert (after > 0).sum() == 5


def test_over_kernels_no_kernel_keeps_its_weight(net):
    _, pairs = replaced(net, "shuffled over kernels", crops(6))
    for before, after in pairs:
        assert torch.equal(before.sort(dim=1).values, after.sort(dim=1).values)
        assert (before != after).all()


def test_over_two_kernels_it_is_the_swap(make):
    _, pairs = replaced(make(2), "shuffled over kernels", crops(3))
    assert all(torch.equal(after, before.flip(1)) for before, after in pairs)


@pytest.mark.parametrize(("size", "count"), [(2, 1), (3, 2), (4, 9)])
def test_derangements_fix_nothing_and_all_are_equally_likely(size, count):
    drawn = derangements(9000, size, torch.Generator().manual_seed(1))
    assert (drawn != torch.arange(size)).all()
    wanted = [p for p in itertools.permutations(range(size)) if all(i != j for i, j in enumerate(p))]
    found, numbers = torch.unique(drawn, dim=0, return_counts=True)
    assert sorted(map(tuple, found.tolist())) == sorted(wanted)
    assert len(wanted) == count
    # five standard deviations
    expected = 9000 / count
    assert (numbers - expected).abs().max() <= 5 * math.sqrt(expected)


def test_a_single_thing_cannot_be_deranged():
    with pytest.raises(ValueError, match="two things or more"):
        derangements(3, 1, torch.Generator())


def test_across_two_images_attention_is_swapped(net):
    x = crops(2)
    swapped = copy.deepcopy(net)
    for module in swapped.modules():
        if isinstance(module, KernelAttention):
            module.register_forward_hook(lambda _, inputs, pi: pi.flip(0))
    with torch.no_grad():
        expected = swapped(x)
        plain = net(x)
    (found,), _ = replaced(net, "shuffled across images", x)
    assert torch.equal(found, expected)
    assert not torch.allclose(found, plain)


def partners(before, after):
    """For each image, which image's attention it has."""
    same = (after[:, None] == before[None]).all(dim=2)
    assert (same.sum(dim=1) == 1).all()
    return same.int().argmax(dim=1).tolist()


def test_across_images_the_partner_is_another_one_and_the_same_in_all_layers(net):
    _, pairs = replaced(net, "shuffled across images", crops(7), crops(7, seed=1))
    # a layer that gives two images the same attention does not tell whose is whose
    drawn = {tuple(partners(before, after)) for before, after in pairs if len(before.unique(dim=0)) == len(before)}
    assert len(drawn) == 1
    (of_all,) = drawn
    assert sorted(of_all) == list(range(14))
    assert all(partner != image for image, partner in enumerate(of_all))
    assert max(of_all[:7]) < 7 <= min(of_all[7:])
    first, second = of_all[:7], tuple(partner - 7 for partner in of_all[7:])
    assert first != second


def test_a_batch_of_one_takes_from_the_last_batch_of_more(net):
    """Also when a batch of one, such as its own mirror, comes between."""
    last = crops(1, seed=2)
    _, pairs = replaced(net, "shuffled across images", crops(3), crops(4, seed=1), last, last.flip(-1))
    drawn = {tuple(partners(b, a)[7:]) for b, a in pairs if len(b.unique(dim=0)) == len(b)}
    assert len(drawn) == 1
    assert all(3 <= partner < 7 for partner in drawn.pop())


def test_without_another_image_it_says_so(net):
    layers = attention_layers(net)
    with replaced_attention(layers, "shuffled across images"):
        for _ in range(2):
            with pytest.raises(ValueError, match="give batches of two images or more"):
                net(crops(1))
        with torch.no_grad():
            assert net(crops(2)).isfinite().all()
            assert net(crops(1)).isfinite().all()


def test_a_pass_that_broke_off_does_not_confuse_the_next(net):
    layers = attention_layers(net)
    middle = layers[len(layers) // 2].attention
    x = crops(2)
    (expected,), _ = replaced(net, "shuffled across images", x)
    with torch.no_grad(), replaced_attention(layers, "shuffled across images"):
        handle = middle.register_forward_hook(_fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            net(crops(5))
        handle.remove()
        assert torch.equal(net(x), expected)


def _fail(*_):
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("aggregation", ["shuffled over kernels", "shuffled across images"])
def test_shuffles_depend_on_the_seed_alone(net, aggregation):
    x = crops(6)
    (first,), _ = replaced(net, aggregation, x, seed=3)
    (again,), _ = replaced(net, aggregation, x, seed=3)
    (other,), _ = replaced(net, aggregation, x, seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_hooks_are_gone_afterward_whatever_happens(net, aggregation):
    layers = attention_layers(net)
    with replaced_attention(layers, aggregation), recorded_attention(layers):
        assert hooks(net) == len(layers) * (1 + (aggregation != "attention"))
    assert hooks(net) == 0
    with pytest.raises(RuntimeError), replaced_attention(layers, aggregation), recorded_attention(layers):
        raise RuntimeError("on purpose")
    assert hooks(net) == 0


def test_with_equal_kernels_aggregation_does_not_matter(net):
    equal = copy.deepcopy(net)
    with torch.no_grad():
        for layer in equal.modules():
            if isinstance(layer, DynamicConv2d):
                layer.weight.copy_(layer.weight[:1].expand_as(layer.weight))
        expected = equal(crops(3))
    for aggregation in AGGREGATIONS:
        (found,), _ = replaced(equal, aggregation, crops(3))
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_sigmoid_attention_keeps_the_images_sum(make):
    net = make(attention="sigmoid")
    for aggregation in ("average", "max", "shuffled over kernels"):
        _, pairs = replaced(net, aggregation, crops(3))
        for before, after in pairs:
            torch.testing.assert_close(after.sum(dim=1), before.sum(dim=1))
        assert max((before.sum(dim=1) - 1).abs().max() for before, _ in pairs) > 0.1


def test_what_cannot_be_is_refused(net, make):
    layers = attention_layers(net)
    with pytest.raises(ValueError, match="aggregation is one of"), replaced_attention(layers, "mean"):
        pass
    single = attention_layers(make(1))
    with pytest.raises(ValueError, match="two kernels or more"), replaced_attention(single, "shuffled over kernels"):
        pass
    with pytest.raises(ValueError, match="no forward pass"), recorded_attention(layers) as record:
        record.statistics()
    with pytest.raises(ValueError, match="one kernel"):
        statistics_of(torch.ones(3, 1))


class _Given(KernelAttention):
    """Attention that is its input, (N, K, 1, 1)."""

    def forward(self, x):
        return x[:, :, 0, 0]


def statistics_of(attention):
    layer = AttentionLayer("layer", "8", attention.shape[1], _Given(4, attention.shape[1]))
    with recorded_attention([layer]) as record:
        for batch in attention.split(3):
            layer.attention(batch[:, :, None, None])
    (found,) = record.statistics()
    return found


def test_statistics_are_those_of_plain_loops():
    attention = torch.softmax(3 * torch.randn(11, 4, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    found = statistics_of(attention)
    rows = attention.tolist()
    entropies = sorted(-sum(p * math.log(p) for p in row) / math.log(4) for row in rows)
    means = [sum(row[k] for row in rows) / 11 for k in range(4)]
    spreads = [math.sqrt(sum((row[k] - means[k]) ** 2 for row in rows) / 11) for k in range(4)]
    assert found.entropy == pytest.approx(sum(entropies) / 11)
    # of eleven values, the second and the last but one
    assert (found.entropy_p10, found.entropy_p90) == pytest.approx((entropies[1], entropies[9]))
    assert found.spread == pytest.approx(sum(spreads) / 4)
    assert found.mean_attention == pytest.approx(means)
    assert found.largest == pytest.approx(sum(map(max, rows)) / 11)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_entropy_goes_from_one_kernel_to_flat_whatever_the_sum(scale):
    assert statistics_of(scale * torch.full((5, 4), 0.25)).entropy == pytest.approx(1)
    assert statistics_of(scale * torch.full((5, 4), 0.25)).spread == pytest.approx(0, abs=1e-9)
    assert statistics_of(scale * torch.eye(4)).entropy == 0
    assert statistics_of(scale * torch.tensor([[0.5, 0.5, 0, 0]])).entropy == pytest.approx(0.5)
