"""The CIFAR networks compared with the papers: parameters, shapes, shortcuts, stochastic depth, initialisation."""

import functools
import math

import pytest
import torch
from torch import nn

from lightning_modules.classification.cifar_networks import CIFAR_NETWORKS, cifar_network
from normshift import IBN2d, convert

SMALL = {
    "cifar_resnet8": 64,
    "cifar_resnet11": 256,
    "cifar_preresnet8": 64,
    "cifar_preresnet11": 256,
    "cifar_wrn10_2": 128,
    "cifar_resnext11_2x16": 1024,
    "cifar_densenet_bc10_8": 18,  # 16 in, 8 more a block, halved behind the first two
    "cifar_vgg11": 512,
    "cifar_alexnet": 256,
}
"""A shallow network of each kind, and the features that its classifier sees."""

# Millions of parameters with 10 classes. He et al. 2016, table 6; He et al. 2016b, table 4; Zagoruyko, Komodakis 2016,
# tables 4 and 5; Xie et al. 2017, table 7; Huang et al. 2017, table 2.
PUBLISHED = {
    "cifar_resnet20": 0.27, "cifar_resnet32": 0.46, "cifar_resnet44": 0.66, "cifar_resnet56": 0.85,
    "cifar_resnet110": 1.7, "cifar_resnet164": 1.7, "cifar_preresnet110": 1.7,
    "cifar_preresnet164": 1.7, "cifar_preresnet1001": 10.2, "cifar_wrn40_2": 2.2,
    "cifar_wrn16_8": 11.0, "cifar_wrn40_4": 8.9, "cifar_wrn28_10": 36.5, "cifar_resnext29_8x64": 34.4,
    "cifar_resnext29_16x64": 68.1, "cifar_densenet_bc100_12": 0.77, "cifar_densenet_bc190_40": 25.6,
}  # fmt: skip


@functools.cache
def shapes(name):
    """A network without storage."""
    with torch.device("meta"):
        return cifar_network(name, 10)


def parameters(name):
    return sum(p.numel() for p in shapes(name).parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_the_published_number_of_parameters(name):
    """To 2%: the papers round, and differ in what they count (10.2 M for 10.33 M of PreResNet-1001)."""
    assert parameters(name) / 1e6 == pytest.approx(PUBLISHED[name], rel=0.02)


def test_exact_counts_that_other_implementations_agree_on():
    assert parameters("cifar_wrn28_10") == 36_479_194
    assert parameters("cifar_densenet_bc100_12") == 769_162
    assert parameters("cifar_resnet110") == 1_727_962


BINS_OWN = {
    # depth of BIN's published code: parameters with 10, 36 and 100 classes, of batch norm and of BIN; counted there
    "8": ((78_042, 78_378), (79_732, 80_068), (83_892, 84_228)),
    "14": ((175_258, 175_818), (176_948, 177_508), (181_108, 181_668)),
    "20": ((272_474, 273_258), (274_164, 274_948), (278_324, 279_108)),
    "32": ((466_906, 468_138), (468_596, 469_828), (472_756, 473_988)),
    "44": ((684_058, 689_226), (690_740, 695_908), (707_188, 712_356)),
    "50": ((776_794, 782_634), (783_476, 789_316), (799_924, 805_764)),
    "56": ((869_530, 876_042), (876_212, 882_724), (892_660, 899_172)),
    "56_basic": ((855_770, 857_898), (857_460, 859_588), (861_620, 863_748)),
    "110": ((1_704_154, 1_716_714), (1_710_836, 1_723_396), (1_727_284, 1_739_844)),
    "110_basic": ((1_730_714, 1_734_858), (1_732_404, 1_736_548), (1_736_564, 1_740_708)),
}


@pytest.mark.parametrize("depth", BINS_OWN)
def test_bins_networks_have_the_parameters_of_its_code(depth):
    for classes, counts in zip((10, 36, 100), BINS_OWN[depth], strict=True):
        with torch.device("meta"):
            network = cifar_network(f"cifar_bin_resnet{depth}", classes)
        plain = sum(p.numel() for p in network.parameters())
        gates = sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
        assert (plain, plain + gates) == counts
    assert sum(p.numel() for p in convert(cifar_network("cifar_bin_resnet8", 10), "bin").parameters()) == 78_378


def test_bins_basic_shortcuts_are_projections():
    network = cifar_network("cifar_bin_resnet8", 10).double().eval()
    block = network.layer2[0]
    x = torch.randn(2, 16, 9, 8, dtype=torch.float64)
    inner = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
    weight = block.downsample[0].weight[:, :, 0, 0]
    shortcut = block.downsample[1](torch.einsum("oi,nihw->nohw", weight, x[:, :, ::2, ::2]))
    torch.testing.assert_close(block(x), (inner + shortcut).relu(), rtol=1e-12, atol=1e-12)
    assert network.layer1[0].downsample is None  # nothing changes its shape there
    assert cifar_network("cifar_bin_resnet44", 10).layer1[0].downsample is not None  # the bottleneck widens


def test_resnet20_by_hand():
    def conv(before, after):
        return 9 * before * after + 2 * after  # and a norm

    stages = 6 * conv(16, 16) + conv(16, 32) + 5 * conv(32, 32) + conv(32, 64) + 5 * conv(64, 64)
    assert parameters("cifar_resnet20") == conv(3, 16) + stages + 64 * 10 + 10  # a shortcut has none: option A


def test_the_published_names_are_names():
    for name in CIFAR_NETWORKS:
        assert parameters(name) > 0


@pytest.mark.parametrize("name", SMALL)
def test_takes_any_size_from_16_pixels(name):
    network = cifar_network(name, 7)
    classifier = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert [m.in_features for m in classifier] == [SMALL[name]]
    for height, width in ((16, 16), (32, 32), (33, 47), (64, 64)):
        assert network(torch.randn(2, 3, height, width)).shape == (2, 7)


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_preresnet8", "cifar_wrn10_1", "cifar_resnext11_2x16"])
def test_stages_halve_the_maps_and_double_the_channels(name):
    network, maps = cifar_network(name, 10), []
    for stage in (network.layer1, network.layer2, network.layer3):
        stage.register_forward_hook(lambda module, inputs, output: maps.append(tuple(output.shape[1:])))
    network(torch.randn(1, 3, 32, 32))
    first = maps[0][0]
    assert maps == [(first, 32, 32), (2 * first, 16, 16), (4 * first, 8, 8)]


@pytest.mark.parametrize(
    "name, blocks, convolutions",
    [
        ("cifar_resnet110", 18, 2),
        ("cifar_resnet110_basic", 18, 2),
        ("cifar_resnet110_bottleneck", 12, 3),
        ("cifar_resnet164", 18, 3),
        ("cifar_resnet164_basic", 27, 2),
        ("cifar_resnet29", 3, 3),
        ("cifar_preresnet110", 18, 2),
        ("cifar_preresnet1001", 111, 3),
        ("cifar_wrn28_10", 4, 2),
        ("cifar_resnext29_8x64", 3, 3),
    ],
)
def test_depth_and_kind_of_block(name, blocks, convolutions):
    network = shapes(name)
    assert [len(stage) for stage in (network.layer1, network.layer2, network.layer3)] == [blocks] * 3
    assert sum(key.startswith("conv") for key, _ in network.layer1[-1].named_children()) == convolutions


def test_resnext_groups():
    network = shapes("cifar_resnext29_8x64")
    convs = [stage[0].conv2 for stage in (network.layer1, network.layer2, network.layer3)]
    assert [(c.groups, c.out_channels // c.groups) for c in convs] == [(8, 64), (8, 128), (8, 256)]


def test_option_a_keeps_every_second_pixel_and_appends_zeros():
    shortcut = cifar_network("cifar_resnet8", 10).layer2[0].downsample
    x = torch.randn(2, 16, 9, 8)
    assert torch.equal(shortcut(x), torch.cat([x[:, :, ::2, ::2], torch.zeros(2, 16, 5, 4)], 1))


def test_squeeze_excitation_and_the_averaged_shortcut_by_hand():
    """The block's residual is multiplied by a factor for each channel; ResNet-D's shortcut changes the shape."""
    options = {"squeeze_excitation": True, "averaged_shortcut": True}
    block = cifar_network("cifar_resnet8", 10, **options).layer2[0].double().eval()
    for norm in (block.bn1, block.bn2, block.downsample[-1]):
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(values, 0.5, 1.5)

    def normed(y, norm):
        mean, var, weight, bias = (
            values[:, None, None] for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (y - mean) / (var + norm.eps).sqrt() * weight + bias

    def linear(y, conv):
        return y @ conv.weight[:, :, 0, 0].T + conv.bias

    x = torch.randn(2, 16, 8, 6, dtype=torch.float64)
    residual = normed(block.conv2(normed(block.conv1(x), block.bn1).relu()), block.bn2)
    factors = linear(linear(residual.mean((2, 3)), block.se.fc1).relu(), block.se.fc2).sigmoid()
    averages = x.reshape(2, 16, 4, 2, 3, 2).mean((3, 5))
    projected = torch.einsum("oi,nihw->nohw", block.downsample[1].weight[:, :, 0, 0], averages)
    expected = (residual * factors[:, :, None, None] + normed(projected, block.downsample[-1])).relu()
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("option", ["squeeze_excitation", "averaged_shortcut"])
def test_an_option_changes_its_part_alone(option):
    plain, changed = (cifar_network("cifar_resnet14", 10, **asked) for asked in ({}, {option: True}))
    blocks = [block for stage in (changed.layer1, changed.layer2, changed.layer3) for block in stage]
    new = {key.partition(".")[2] for key in changed.state_dict().keys() - plain.state_dict().keys()}
    assert plain.state_dict().keys() < changed.state_dict().keys()
    if option == "squeeze_excitation":
        assert all(block.se is not None for block in blocks)
        assert all(key.partition(".")[2].startswith("se.") for key in new)
    else:  # stages 2 and 3 begin where the shape changes
        assert {key.rpartition("downsample.")[0] for key in new} == {"0."}
        assert [block.downsample is not None for block in blocks] == [False, False, True, False, True, False]
    assert changed(torch.randn(2, 3, 33, 47)).shape == (2, 10)


def test_pre_activation_by_hand():
    """If the shape changes, both paths start after norm and ReLU; nothing follows the addition."""
    network = cifar_network("cifar_preresnet8", 10).double().eval()
    with torch.no_grad():
        for same, block in ((True, network.layer1[0]), (False, network.layer2[0])):
            block.bn1.bias.normal_()
            x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
            active = block.bn1(x).relu()
            inner = block.conv2(block.bn2(block.conv1(active)).relu())
            expected = inner + (x if same else block.downsample(active))
            torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
            assert (expected < 0).any()


def test_a_norm_follows_every_convolution_of_alexnet_and_vgg_and_no_convolution_has_a_bias():
    for name in ("cifar_alexnet", "cifar_vgg19"):
        kinds = [type(m) for m in cifar_network(name, 10, width=0.125).features]
        convs = [index for index, kind in enumerate(kinds) if kind is nn.Conv2d]
        assert len(convs) == {"cifar_alexnet": 5, "cifar_vgg19": 16}[name]
        assert all(kinds[index + 1 : index + 3] == [nn.BatchNorm2d, nn.ReLU] for index in convs)
    for name in SMALL:
        assert all(m.bias is None for m in cifar_network(name, 10).modules() if isinstance(m, nn.Conv2d))


def test_stochastic_depth_grows_linearly_from_nothing():
    network = cifar_network("cifar_resnet20", 10, stochastic_depth=0.4)
    blocks = [block for stage in (network.layer1, network.layer2, network.layer3) for block in stage]
    rates = [block.drop_path.drop_prob if block.drop_path else 0.0 for block in blocks]
    assert rates == pytest.approx([0.4 * k / 8 for k in range(9)])


@pytest.mark.parametrize(
    "name", ["cifar_resnet14", "cifar_resnet20_bottleneck", "cifar_preresnet14", "cifar_preresnet20_bottleneck"]
)
def test_a_dropped_block_is_its_shortcut_in_training_alone(name):
    block = cifar_network(name, 10, stochastic_depth=0.5).layer3[1]
    x = torch.randn(4, 256 if name.endswith("bottleneck") else 64, 4, 4).relu()
    block.drop_path.drop_prob = 1.0
    torch.testing.assert_close(block(x), x)
    assert not torch.allclose(block.eval()(x), x)


def test_dropout_stands_before_the_classifier():
    for name in SMALL:
        network = cifar_network(name, 10, dropout=0.3)
        drops = [m for m in network.modules() if isinstance(m, nn.Dropout)]
        assert [m.p for m in drops] == [0.3]
        seen = []
        drops[0].register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0].shape))
        network(torch.randn(2, 3, 32, 32))
        assert seen == [(2, SMALL[name])]


def test_width_multiplies_every_channel():
    half, whole = (cifar_network("cifar_resnet20", 10, width=w) for w in (0.5, 1.0))
    pairs = zip(half.modules(), whole.modules(), strict=True)
    convs = [(h.out_channels, w.out_channels) for h, w in pairs if isinstance(w, nn.Conv2d)]
    assert len(convs) == 19 and all(2 * h == w for h, w in convs)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_densenet_bc40_12", "cifar_vgg11", "cifar_wrn16_2"])
def test_convolutions_are_he_normal(name):
    torch.manual_seed(0)
    for conv in (m for m in cifar_network(name, 10).modules() if isinstance(m, nn.Conv2d)):
        fan_out = conv.out_channels * math.prod(conv.kernel_size)
        if conv.weight.numel() > 2000:
            assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)


def test_ibn_a_takes_the_first_norm_of_each_block_and_of_every_third_dense_layer():
    for name, key, count in (("cifar_resnet20", "bn1", 9), ("cifar_densenet_bc40_12", "norm1", 6)):
        network = convert(cifar_network(name, 10), "ibn-a")
        placed = [path for path, module in network.named_modules() if isinstance(module, IBN2d)]
        assert len(placed) == count and all(path.endswith(f".{key}") for path in placed)


@pytest.mark.parametrize(
    "name, settings, says",
    [
        ("cifar_resnet21", {}, r"cifar_resnet21 cannot be: it takes 6n\+2 .* or 9n\+2"),
        ("cifar_resnet2", {}, "cannot be"),
        ("cifar_resnet32_bottleneck", {}, r"takes 9n\+2 layers"),
        ("cifar_resnet29_basic", {}, r"takes 6n\+2 layers"),
        ("cifar_bin_resnet29", {}, r"cifar_bin_resnet29 cannot be: it takes 6n\+2 layers"),
        ("cifar_bin_resnet8", {"averaged_shortcut": True}, "does not take averaged_shortcut: cifar_resnetDEPTH does"),
        ("cifar_wrn27_10", {}, r"takes 6n\+4 layers"),
        ("cifar_resnext30_8x64", {}, r"takes 9n\+2 layers"),
        ("cifar_densenet_bc101_12", {}, r"takes 6n\+4 layers"),
        ("cifar_vgg12", {}, "unknown CIFAR network 'cifar_vgg12': names are like .*cifar_vgg1"),
        ("cifar_vgg19", {"stochastic_depth": 0.1}, "no residual blocks"),
        ("cifar_densenet_bc40_12", {"stochastic_depth": 0.1}, "no residual blocks"),
        ("cifar_resnet20", {"width": 0}, "positive factor"),
        ("cifar_resnet11", {"squeeze_excitation": True}, "has bottlenecks, which do not take squeeze_excitation.$"),
        ("cifar_resnet20_bottleneck", {"averaged_shortcut": True}, "bottlenecks, which do not take averaged_shortcut"),
        ("cifar_wrn10_1", {"averaged_shortcut": True}, "cifar_wrn10_1 does not take averaged_shortcut: cifar_resnet"),
        (
            "cifar_vgg11",
            {"squeeze_excitation": True, "averaged_shortcut": True},
            "cifar_vgg11 does not take squeeze_excitation or averaged_shortcut: cifar_resnetDEPTH does.$",
        ),
    ],
)
def test_what_cannot_be_is_said_in_words(name, settings, says):
    with pytest.raises(ValueError, match=says):
        cifar_network(name, 10, **settings)
