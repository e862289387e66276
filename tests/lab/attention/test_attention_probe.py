"""Replacing and recording attention, with sharp attention."""

import copy
import itertools
import math
from contextlib import ExitStack

import pytest
import torch

from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention
from posedy.models.factory import create_model
from tools.lab.attention.attention_probe import (
    AGGREGATIONS,
    AttentionLayer,
    attention_layers,
    derangements,
    record_attention,
    replace_attention,
)

NAME = "dy_mobilenetv2_035-dy_fpn"
SIZE = (32, 64)


def crops(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, SIZE[1], SIZE[0], generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def make(perturb):
    """`make(num_kernels=4)`: a network in float64 with sharp attention."""

    def of(num_kernels=4, **options):
        torch.manual_seed(0)
        net = create_model(
            NAME, num_keypoints=3, num_kernels=num_kernels, input_size=SIZE, depth=0.34, **options
        ).double()
        # sigmoid attention has no temperature to sharpen by
        return perturb(net, crops(8)) if options.get("attention") != "sigmoid" else net.eval()

    return of


@pytest.fixture(scope="module")
def net(make):
    return make()


def run_replaced(net, aggregation, *batches, seed=0):
    """Return the outputs and, per layer, the attention before and after replacement, over several batches."""
    layers = attention_layers(net)
    with (
        torch.no_grad(),
        record_attention(layers) as before,
        replace_attention(layers, aggregation, seed),
        record_attention(layers) as after,
    ):
        outputs = [net(batch) for batch in batches]
    return outputs, [(before.attention(layer), after.attention(layer)) for layer in layers]


def kernels_and_biases(net):
    """Return the parameters (K, ...) of all dynamic convolutions."""
    layers = [layer for layer in net.modules() if isinstance(layer, DynamicConv2d)]
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias) if parameter is not None]


def count_hooks(net):
    return sum(len(module._forward_hooks) for module in net.modules())


def test_fixture_has_sharp_attention(net):
    _, pairs = run_replaced(net, "attention", crops(8))
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
        ("mobilenetv2_035-dy_fpn", ["head"]),
        ("dy_resnet10-fpn", ["4", "8", "16", "32"]),
        ("mobilenetv2_035-fpn", []),
    ],
)
def test_groups_exist_only_for_dynamic_layers(name, groups):
    net = create_model(name, input_size=SIZE, in_channels=1).eval()
    assert list(dict.fromkeys(layer.group for layer in attention_layers(net))) == groups
    assert count_hooks(net) == 0


def test_training_mode_is_rejected(net):
    with pytest.raises(ValueError, match=r"net\.eval\(\)"):
        attention_layers(copy.deepcopy(net).train())


def test_attention_aggregation_is_bit_exact(net):
    x = crops(3)
    with torch.no_grad():
        expected = net(x)
    (output,), _ = run_replaced(net, "attention", x)
    assert torch.equal(output, expected)


def test_average_equals_a_network_of_mean_kernels(net):
    averaged = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in kernels_and_biases(averaged):
            parameter.copy_(parameter.mean(dim=0).expand_as(parameter))
        expected = averaged(crops(3))
        original = net(crops(3))
    (output,), pairs = run_replaced(net, "average", crops(3))
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())
    assert (output - original).abs().max() > 0.1 * original.abs().max()
    assert all(torch.allclose(after, torch.full_like(after, 0.25)) for _, after in pairs)


def test_averaging_all_groups_equals_the_average(net):
    layers = attention_layers(net)
    x = crops(3)
    (averaged,), _ = run_replaced(net, "average", x)
    with torch.no_grad(), ExitStack() as groups:
        for group in {layer.group for layer in layers}:
            groups.enter_context(replace_attention([layer for layer in layers if layer.group == group], "average"))
        assert torch.equal(net(x), averaged)


def test_averaging_one_group_leaves_the_others_unchanged(net):
    layers = attention_layers(net)
    off = [layer for layer in layers if layer.group == "16"]
    with torch.no_grad(), replace_attention(off, "average"), record_attention(layers) as record:
        net(crops(4))
    for layer in layers:
        is_uniform = torch.allclose(record.attention(layer), torch.full((4, 4), 0.25, dtype=torch.float64))
        assert is_uniform == (layer.group == "16")


def test_max_puts_all_weight_on_the_largest(net):
    _, pairs = run_replaced(net, "max", crops(5))
    for before, after in pairs:
        assert torch.equal(after.argmax(dim=1), before.argmax(dim=1))
        torch.testing.assert_close(after.amax(dim=1), torch.ones(5, dtype=torch.float64))
        assert (after > 0).sum() == 5


def test_shuffling_over_kernels_changes_every_weight(net):
    _, pairs = run_replaced(net, "shuffled over kernels", crops(6))
    for before, after in pairs:
        assert torch.equal(before.sort(dim=1).values, after.sort(dim=1).values)
        assert (before != after).all()


def test_shuffling_over_two_kernels_swaps_them(make):
    _, pairs = run_replaced(make(2), "shuffled over kernels", crops(3))
    assert all(torch.equal(after, before.flip(1)) for before, after in pairs)


@pytest.mark.parametrize(("size", "count"), [(2, 1), (3, 2), (4, 9)])
def test_derangements_have_no_fixed_points_and_are_uniform(size, count):
    sampled = derangements(9000, size, torch.Generator().manual_seed(1))
    assert (sampled != torch.arange(size)).all()
    valid = [p for p in itertools.permutations(range(size)) if all(i != j for i, j in enumerate(p))]
    unique, frequencies = torch.unique(sampled, dim=0, return_counts=True)
    assert sorted(map(tuple, unique.tolist())) == sorted(valid)
    assert len(valid) == count
    # five standard deviations
    expected = 9000 / count
    assert (frequencies - expected).abs().max() <= 5 * math.sqrt(expected)


def test_single_element_derangement_is_rejected():
    with pytest.raises(ValueError, match="at least 2"):
        derangements(3, 1, torch.Generator())


def test_shuffling_across_two_images_swaps_their_attention(net):
    x = crops(2)
    swapped = copy.deepcopy(net)
    for module in swapped.modules():
        if isinstance(module, KernelAttention):
            module.register_forward_hook(lambda _, inputs, pi: pi.flip(0))
    with torch.no_grad():
        expected = swapped(x)
        original = net(x)
    (output,), _ = run_replaced(net, "shuffled across images", x)
    assert torch.equal(output, expected)
    assert not torch.allclose(output, original)


def partners(before, after):
    """Return, for each image, the index of the image whose attention it has."""
    same = (after[:, None] == before[None]).all(dim=2)
    assert (same.sum(dim=1) == 1).all()
    return same.int().argmax(dim=1).tolist()


def test_shuffling_across_images_uses_one_partner_in_all_layers(net):
    _, pairs = run_replaced(net, "shuffled across images", crops(7), crops(7, seed=1))
    # partners are ambiguous in layers where two images have the same attention
    found = {tuple(partners(before, after)) for before, after in pairs if len(before.unique(dim=0)) == len(before)}
    assert len(found) == 1
    (order,) = found
    assert sorted(order) == list(range(14))
    assert all(partner != image for image, partner in enumerate(order))
    assert max(order[:7]) < 7 <= min(order[7:])
    first, second = order[:7], tuple(partner - 7 for partner in order[7:])
    assert first != second


def test_batch_of_one_uses_the_last_larger_batch(net):
    """Also after another batch of one, such as its flipped copy."""
    last = crops(1, seed=2)
    _, pairs = run_replaced(net, "shuffled across images", crops(3), crops(4, seed=1), last, last.flip(-1))
    found = {tuple(partners(b, a)[7:]) for b, a in pairs if len(b.unique(dim=0)) == len(b)}
    assert len(found) == 1
    assert all(3 <= partner < 7 for partner in found.pop())


def test_shuffling_without_another_image_is_rejected(net):
    layers = attention_layers(net)
    with replace_attention(layers, "shuffled across images"):
        for _ in range(2):
            with pytest.raises(ValueError, match="at least 2 images"):
                net(crops(1))
        with torch.no_grad():
            assert net(crops(2)).isfinite().all()
            assert net(crops(1)).isfinite().all()


def test_forward_pass_after_a_failed_one_is_correct(net):
    layers = attention_layers(net)
    middle = layers[len(layers) // 2].attention
    x = crops(2)
    (expected,), _ = run_replaced(net, "shuffled across images", x)
    with torch.no_grad(), replace_attention(layers, "shuffled across images"):
        handle = middle.register_forward_hook(_fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            net(crops(5))
        handle.remove()
        assert torch.equal(net(x), expected)


def _fail(*_):
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("aggregation", ["shuffled over kernels", "shuffled across images"])
def test_shuffles_depend_only_on_the_seed(net, aggregation):
    x = crops(6)
    (first,), _ = run_replaced(net, aggregation, x, seed=3)
    (again,), _ = run_replaced(net, aggregation, x, seed=3)
    (other,), _ = run_replaced(net, aggregation, x, seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_hooks_are_removed_also_after_errors(net, aggregation):
    layers = attention_layers(net)
    with replace_attention(layers, aggregation), record_attention(layers):
        assert count_hooks(net) == len(layers) * (1 + (aggregation != "attention"))
    assert count_hooks(net) == 0
    with pytest.raises(RuntimeError), replace_attention(layers, aggregation), record_attention(layers):
        raise RuntimeError("on purpose")
    assert count_hooks(net) == 0


def test_aggregations_agree_for_equal_kernels(net):
    equal = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in kernels_and_biases(equal):
            parameter.copy_(parameter[:1].expand_as(parameter))
        expected = equal(crops(3))
    for aggregation in AGGREGATIONS:
        (output,), _ = run_replaced(equal, aggregation, crops(3))
        assert (output - expected).abs().max() < 1e-5 * expected.abs().max()


def test_replacements_keep_the_sum_of_sigmoid_attention(make):
    net = make(attention="sigmoid")
    for aggregation in ("average", "max", "shuffled over kernels"):
        _, pairs = run_replaced(net, aggregation, crops(3))
        for before, after in pairs:
            torch.testing.assert_close(after.sum(dim=1), before.sum(dim=1))
        assert max((before.sum(dim=1) - 1).abs().max() for before, _ in pairs) > 0.1


def test_invalid_arguments_are_rejected(net, make):
    layers = attention_layers(net)
    with pytest.raises(ValueError, match="'mean'"), replace_attention(layers, "mean"):
        pass
    single = attention_layers(make(1))
    with pytest.raises(ValueError, match="at least 2 kernels"), replace_attention(single, "shuffled over kernels"):
        pass
    with pytest.raises(ValueError, match="forward pass"), record_attention(layers) as record:
        record.statistics()
    with pytest.raises(ValueError, match="at least 2 kernels"):
        statistics_of(torch.ones(3, 1))


class _IdentityAttention(KernelAttention):
    """Attention that returns its input (N, K, 1, 1)."""

    def forward(self, x):
        return x[:, :, 0, 0]


def statistics_of(attention):
    layer = AttentionLayer("layer", "8", attention.shape[1], _IdentityAttention(4, attention.shape[1]))
    with record_attention([layer]) as record:
        for batch in attention.split(3):
            layer.attention(batch[:, :, None, None])
    (statistics,) = record.statistics()
    return statistics


def test_statistics_equal_plain_loops():
    attention = torch.softmax(3 * torch.randn(11, 4, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    statistics = statistics_of(attention)
    rows = attention.tolist()
    entropies = sorted(-sum(p * math.log(p) for p in row) / math.log(4) for row in rows)
    means = [sum(row[k] for row in rows) / 11 for k in range(4)]
    spreads = [math.sqrt(sum((row[k] - means[k]) ** 2 for row in rows) / 11) for k in range(4)]
    assert statistics.entropy == pytest.approx(sum(entropies) / 11)
    # for eleven values, the second and the second to last
    assert (statistics.entropy_p10, statistics.entropy_p90) == pytest.approx((entropies[1], entropies[9]))
    assert statistics.spread == pytest.approx(sum(spreads) / 4)
    assert statistics.mean_attention == pytest.approx(means)
    assert statistics.largest == pytest.approx(sum(map(max, rows)) / 11)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_entropy_is_0_for_one_kernel_and_1_for_uniform_attention(scale):
    assert statistics_of(scale * torch.full((5, 4), 0.25)).entropy == pytest.approx(1)
    assert statistics_of(scale * torch.full((5, 4), 0.25)).spread == pytest.approx(0, abs=1e-9)
    assert statistics_of(scale * torch.eye(4)).entropy == 0
    assert statistics_of(scale * torch.tensor([[0.5, 0.5, 0, 0]])).entropy == pytest.approx(0.5)
