"""RobustNet's networks compared with the published layers: parameters, dilations, shapes, names, outputs."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datamodules.segmentation.domains import Domain
from datamodules.segmentation.labels import STREET
from lightning_modules.segmentation.module import SegmentationModule, pixel_loss
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES
from lightning_modules.segmentation.robustnet import at_the_head
from normshift import norm_layers
from normshift.layers import InstanceNorm

R50, R101 = SEGMENTATION_RECIPES["robustnet"], SEGMENTATION_RECIPES["robustnet-r101"]
SMALL = dataclasses.replace(R50, backbone="resnet18")
DEEP_STEM = dataclasses.replace(R50, backbone="resnet10t")  # a stem of three convolutions, as the ResNet-101 has
SOURCE = Domain("source", [], STREET, tuple(range(19)), {})


def module(recipe, norm="bn", **options) -> SegmentationModule:
    torch.manual_seed(0)
    return SegmentationModule(recipe, norm, [SOURCE], **options)


def sized(recipe, norm="bn") -> SegmentationModule:
    """The network in its published size, with shapes and settings but without values."""
    with torch.device("meta"):
        return module(recipe, norm)


def count(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


@pytest.mark.parametrize(
    ("recipe", "stem", "layer1", "layer3", "encoder", "total", "ibn"),
    [
        (R50, 9_536, 215_808, 7_098_368, 23_508_032, 45_081_542, 45_083_078),
        (R101, 112_832, 236_288, 26_090_496, 42_623_936, 64_197_446, 64_198_982),
    ],
)
def test_parameters_part_by_part(recipe, stem, layer1, layer3, encoder, total, ibn):
    net = sized(recipe)
    stages = net.net.encoder.model
    assert count(stages.conv1) + count(stages.bn1) == stem
    assert [count(stages[f"layer{i}"]) for i in (1, 2, 3, 4)] == [layer1, 1_219_584, layer3, 14_964_736]
    head = net.net.decoder
    parts = {name: count(part) for name, part in head.named_children()}
    assert parts == {"aspp": 15_206_912, "bot_aspp": 328_192, "bot_fine": 12_384, "final1": 1_291_264, "final2": 4_883}
    assert (count(net.net.encoder), count(head), count(net.auxiliary)) == (encoder, 16_843_635, 4_729_875)
    assert count(net) == total and count(sized(recipe, "ibn-b")) == ibn


@pytest.mark.parametrize(
    ("recipe", "rates", "layer3", "layer4"), [(R50, (6, 12, 18), 1, 2), (R101, (12, 24, 36), 2, 4)]
)
def test_dilations_are_every_blocks(recipe, rates, layer3, layer4):
    net = sized(recipe).net
    for stage, dilation, stride in (
        (net.encoder.model.layer3, layer3, 2 // layer3),
        (net.encoder.model.layer4, layer4, 1),
    ):
        convs = [block.conv2 for block in stage]
        assert all(conv.dilation == conv.padding == (dilation, dilation) for conv in convs)
        assert [conv.stride[0] for conv in convs] == [stride] + [1] * (len(convs) - 1)
        assert stage[0].downsample[0].kernel_size == (1, 1) and stage[0].downsample[0].stride == (stride, stride)
    convs = [branch[0] for branch in net.decoder.aspp.features]
    assert [conv.kernel_size[0] for conv in convs] == [1, 3, 3, 3] and all(conv.groups == 1 for conv in convs)
    assert tuple(conv.dilation[0] for conv in convs[1:]) == tuple(conv.padding[0] for conv in convs[1:]) == rates


def test_biases_and_dropouts():
    net = sized(R50)
    biased = {name for name, part in net.named_modules() if isinstance(part, nn.Conv2d) and part.bias is not None}
    assert biased == {"net.decoder.final2.0", "auxiliary.0", "auxiliary.4"}
    dropouts = {name: part.p for name, part in net.named_modules() if "Dropout" in type(part).__name__ and part.p}
    assert dropouts == {"auxiliary.3": 0.1}


@pytest.mark.parametrize(("recipe", "deep"), [(R50, [(7, 12), (6, 10)]), (R101, [(14, 24), (12, 20)])])
def test_images_are_not_padded(recipe, deep):
    net = sized(recipe).eval()
    for size, low, layer4 in zip([(105, 191), (96, 160)], [(27, 48), (24, 40)], deep, strict=True):
        images = torch.empty(1, 3, *size, device="meta")
        features = net.net.encoder(images)
        assert (features[2].shape[-2:], features[-1].shape[-2:]) == (low, layer4)
        assert net(images).shape == (1, 19, *size)


def functional(state: dict, features: list[torch.Tensor], rates=(6, 12, 18)) -> torch.Tensor:
    """The published head, written out: image branch, 1x1, rates ascending; low level before ASPP; corners aligned."""

    def conv(x, name, index=0, **settings):
        norm = [state[f"{name}.{index + 1}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(F.conv2d(x, state[f"{name}.{index}.weight"], **settings), *norm, eps=1e-5))

    def enlarged(x, size):
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    image, low, deep = features[0], features[2], features[-1]
    size = deep.shape[-2:]
    branches = [enlarged(conv(deep.mean((2, 3), keepdim=True), "aspp.img_conv"), size), conv(deep, "aspp.features.0")]
    branches += [conv(deep, f"aspp.features.{i + 1}", dilation=r, padding=r) for i, r in enumerate(rates)]
    deep = enlarged(conv(torch.cat(branches, 1), "bot_aspp"), low.shape[-2:])
    x = torch.cat([conv(low, "bot_fine"), deep], 1)
    x = conv(conv(x, "final1", padding=1), "final1", 3, padding=1)
    return enlarged(F.conv2d(x, state["final2.0.weight"], state["final2.0.bias"]), image.shape[-2:])


def shuffled_norms(net: nn.Module) -> nn.Module:
    """Give batch norms weights and averages other than 0 and 1."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.uniform_(0.5, 1.5)
    return net


def test_the_heads_function():
    net = shuffled_norms(module(SMALL)).eval().net
    with torch.no_grad():
        images = torch.randn(2, 3, 75, 90)
        features = net.encoder(images)
        torch.testing.assert_close(net(images), functional(net.decoder.state_dict(), features), rtol=1e-4, atol=1e-4)


def test_heads_start_from_kaimings_normal_distribution():
    net = module(SMALL)
    branch = net.net.decoder.aspp.features[1][0].weight  # 512 channels x 3 x 3
    assert branch.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert net.net.decoder.final2[0].bias.abs().max() == 0
    assert all(block.bn2.weight.min() == 1 for block in net.net.encoder.model.layer2)


def test_the_auxiliary_loss_is_taken_at_the_heads_size():
    labels = torch.arange(96 * 64).view(1, 96, 64)
    scores, shrunk = at_the_head(torch.zeros(1, 19, 6, 4), labels)
    assert torch.equal(shrunk, labels[:, ::16, ::16]) and scores.shape[-2:] == shrunk.shape[-2:]
    net = module(SMALL).eval()
    images, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 19, (2, 64, 96))
    labels[0, :20] = 255
    auxiliary = net.auxiliary(net.net.encoder(images)[-2])
    losses = [F.cross_entropy(net(images), labels, ignore_index=255)]
    losses += [F.cross_entropy(auxiliary, labels[:, ::16, ::16], ignore_index=255)]
    assert net.model_step(images, labels).item() == pytest.approx((losses[0] + 0.4 * losses[1]).item(), rel=1e-5)
    assert pixel_loss(net(images), torch.full_like(labels, 255)) == 0


def test_a_cell_of_the_head_looks_at_the_pixel_whose_label_it_gets():
    """The receptive field of layer3's cell (i, j), by its gradient, is symmetric about pixel (16 i, 16 j)."""
    encoder = module(SMALL).net.encoder.double().eval()
    for conv in (part for part in encoder.modules() if isinstance(part, nn.Conv2d)):
        nn.init.ones_(conv.weight)
    image = torch.zeros(1, 3, 640, 64, dtype=torch.double).requires_grad_()
    image.data += torch.rand_like(image) * 1e-3 + 1
    encoder(image)[-2][0, 0, 20, 2].backward()
    rows = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert (rows.min() + rows.max()).item() / 2 == pytest.approx(16 * 20, abs=3)  # the pool takes one of 3 x 3


@pytest.mark.parametrize("recipe", [SMALL, DEEP_STEM])
def test_ibn_b_stands_where_robustnets_ibn_does(recipe):
    plain, net = module(recipe), module(recipe, "ibn-b")
    instance = {name for name, layer in norm_layers(net.net.encoder.model).items() if isinstance(layer, InstanceNorm)}
    last = {f"layer{i}.{len(plain.net.encoder.model[f'layer{i}']) - 1}.IN" for i in (1, 2)}
    assert instance == last | ({"conv1.1", "conv1.4"} if recipe is DEEP_STEM else {"bn1"})


def test_the_stems_instance_norm_inherits_its_batch_norms_weight(tmp_path):
    donor = shuffled_norms(module(SMALL)).net.encoder.model.state_dict()
    torch.save(donor | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet.pth")
    stages = module(SMALL, "ibn-b", weights=str(tmp_path / "resnet.pth")).net.encoder.model
    assert torch.equal(stages.bn1.weight, donor["bn1.weight"]) and torch.equal(stages.bn1.bias, donor["bn1.bias"])
    assert isinstance(stages.bn1, InstanceNorm)
    behind = stages.layer1[-1].IN
    assert behind.weight.eq(1).all() and behind.bias.eq(0).all()


STEM = {"conv1": "layer0.0", "bn1": "layer0.1"}
DEEP = {"conv1.0": "layer0.0", "conv1.1": "layer0.1", "conv1.3": "layer0.3", "conv1.4": "layer0.4",
        "conv1.6": "layer0.6", "bn1": "layer0.7"}  # fmt: skip


def released(net: SegmentationModule, stem: dict) -> dict:
    """A network's tensors, with the names in RobustNet's files."""
    found = {}
    for key, value in net.net.encoder.model.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        found[f"{stem.get(owner, owner)}.{leaf}".replace(".IN.", ".instance_norm_layer.")] = value
    found |= net.net.decoder.state_dict() | {f"dsn.{key}": v for key, v in net.auxiliary.state_dict().items()}
    return {f"module.{key}": value for key, value in found.items()}


@pytest.mark.parametrize(("recipe", "stem"), [(SMALL, STEM), (DEEP_STEM, DEEP)])
@pytest.mark.parametrize("norm", ["bn", "ibn-b"])
def test_released_networks_load_whole(recipe, stem, norm, tmp_path):
    donor = shuffled_norms(module(recipe, norm))
    torch.save({"state_dict": released(donor, stem), "epoch": 52}, tmp_path / "released.pth")
    torch.manual_seed(7)
    net = SegmentationModule(recipe, norm, [SOURCE], weights=str(tmp_path / "released.pth"))
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in donor.state_dict().items())


def test_a_released_network_that_whitens_is_one_of_instance_norms_without_weights(tmp_path):
    donor = module(SMALL, "ibn-b")
    state = released(donor, STEM)
    whitening = [key for key in state if "instance_norm" in key or key.startswith("module.layer0.1.")]
    torch.save({"state_dict": {key: v for key, v in state.items() if key not in whitening}}, tmp_path / "isw.pth")
    net = module(SMALL, "ibn-b", weights=str(tmp_path / "isw.pth"))
    assert len(whitening) == 6 and net.net.encoder.model.bn1.weight.eq(1).all()


def test_csails_resnet_goes_into_the_deep_stem(tmp_path):
    donor = shuffled_norms(module(DEEP_STEM)).net.encoder.model.state_dict()
    theirs = {
        "conv1.0": "conv1",
        "conv1.1": "bn1",
        "conv1.3": "conv2",
        "conv1.4": "bn2",
        "conv1.6": "conv3",
        "bn1": "bn3",
    }
    file = {}
    for key, value in donor.items():
        owner, _, leaf = key.rpartition(".")
        file[f"{theirs.get(owner, owner)}.{leaf}"] = value
    torch.save(file | {"fc.weight": torch.zeros(1000, 512)}, tmp_path / "resnet101-imagenet.pth")
    net = module(DEEP_STEM, weights=str(tmp_path / "resnet101-imagenet.pth"))
    assert all(torch.equal(value, donor[key]) for key, value in net.net.encoder.model.state_dict().items())


def test_what_does_not_fit_is_said(tmp_path):
    torch.save({"state_dict": released(module(SMALL), STEM)}, tmp_path / "released.pth")
    with pytest.raises(ValueError, match=r"released\.pth: it holds RobustNet's whole network, .* --arch robustnet"):
        module(dataclasses.replace(SMALL, arch="deeplabv3plus"), weights=str(tmp_path / "released.pth"))
    with pytest.raises(ValueError, match=r"robustnet stands on ResNets, such as resnet50\.tv_in1k; efficientnet_b0"):
        module(dataclasses.replace(SMALL, backbone="efficientnet_b0"))
    with pytest.raises(ValueError, match="an output stride of 8, 16 or 32, not 4"):
        module(dataclasses.replace(SMALL, output_stride=4))


@pytest.mark.parametrize("recipe", [R50, R101])
def test_one_group_decays_as_a_whole_and_the_rate_falls_from_the_start(recipe):
    assert (recipe.lr, recipe.momentum, recipe.weight_decay, recipe.poly_power) == (0.01, 0.9, 5e-4, 0.9)
    assert (recipe.max_steps, recipe.batch_size, recipe.warmup_steps, recipe.crop) == (40_000, 16, 0, (768, 768))
    for norm in ("bn", "ibn-b"):
        net = sized(recipe, norm)
        configured = net.configure_optimizers()
        (group,) = configured["optimizer"].param_groups
        assert len(group["params"]) == len([*net.parameters()]) and group["weight_decay"] == 5e-4
        assert not group["nesterov"]
        factor = configured["lr_scheduler"]["scheduler"].lr_lambdas[0]
        assert [factor(step) for step in (0, 10_000, 40_000)] == pytest.approx([1, 0.75**0.9, 0])
