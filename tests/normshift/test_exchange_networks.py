"""Other libraries' networks compute the same after an exchange, in any order of exchanges."""

import copy
import functools

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import mobilenetv2, quantization, regnet, resnet, video

from normshift import antialias, convert, fold, norm_layers, synchronize

TINY = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32), "stem_width": 8, "num_classes": 5}
INVERTED = [[1, 8, 1, 1], [3, 8, 1, 2], [3, 16, 2, 2]]  # expansion, channels, blocks, stride
PLAIN = {"weights": None, "weights_backbone": None, "num_classes": 5}


def timms(name, **options):
    return lambda: timm.create_model(name, pretrained=False, **{"num_classes": 5} | options)


def smps(kind, encoder="resnet18"):
    return lambda: kind(encoder, encoder_weights=None, classes=3)


def tiny_regnet():
    params = regnet.BlockParams.from_init_params(depth=4, w_0=8, w_a=16, w_m=2, group_width=8, se_ratio=0.25)
    return regnet.RegNet(params, num_classes=5, stem_width=8)


def quantizable():
    block = quantization.resnet.QuantizableBasicBlock
    return quantization.resnet.QuantizableResNet(block, [1, 1, 1, 1], num_classes=5)


def tiny_video():
    kinds = [video.resnet.Conv3DSimple] * 4
    return video.resnet.VideoResNet(video.resnet.BasicBlock, kinds, [1, 1, 1, 1], video.resnet.BasicStem, num_classes=5)


class Backbone(nn.Module):
    """Of a detector: what stands behind it sorts, which near ties turn into a lottery."""

    def __init__(self, make):
        super().__init__()
        self.detector = make(**PLAIN)

    def forward(self, x):
        return list(self.detector.backbone(x).values())


QUICK = {
    "resnet": lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=5, width_per_group=64),
    "timm-preact": timms("resnetv2_18", **{k: v for k, v in TINY.items() if k != "stem_width"}),
    "timm-efficientnet": timms("test_efficientnet"),
}
DETECTION, MASKS, VIDEOS = torchvision.models.detection, torchvision.models.segmentation, torchvision.models.video
MANY = {name: functools.partial(torchvision.models.get_model, name, weights=None, num_classes=5) for name in (
    "resnet18", "wide_resnet50_2", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "shufflenet_v2_x0_5",
    "mnasnet0_5", "regnet_x_400mf", "vgg11_bn", "quantized_resnet18", "quantized_mobilenet_v2",
    "quantized_shufflenet_v2_x0_5", "r3d_18", "r2plus1d_18", "mc3_18",
)}  # fmt: skip
MANY |= {
    "mobilenet": lambda: mobilenetv2.MobileNetV2(5, inverted_residual_setting=INVERTED),
    "regnet": tiny_regnet,
    "quantizable": quantizable,
    "video": tiny_video,
    "timm-resnet": timms("resnet18d", **TINY),
    "timm-frozen": lambda: timm.layers.freeze_batch_norm_2d(timms("test_efficientnet")()),
    "smp": smps(smp.DeepLabV3Plus, "tu-resnet10t"),
    "googlenet": lambda: torchvision.models.googlenet(num_classes=5, aux_logits=False, init_weights=False),
    "inception": lambda: torchvision.models.inception_v3(num_classes=5, aux_logits=False, init_weights=False),
    "lraspp": lambda: MASKS.lraspp_mobilenet_v3_large(**PLAIN),
    "fcn": lambda: MASKS.fcn_resnet50(**PLAIN),
    "deeplabv3": lambda: MASKS.deeplabv3_mobilenet_v3_large(**PLAIN),
    "ssdlite": lambda: Backbone(DETECTION.ssdlite320_mobilenet_v3_large),
    "retinanet": lambda: Backbone(DETECTION.retinanet_resnet50_fpn),
    "fasterrcnn": lambda: Backbone(DETECTION.fasterrcnn_mobilenet_v3_large_320_fpn),
}
MANY |= {name: timms(name) for name in (
    "resnet10t", "efficientnet_b0", "nf_resnet26", "eca_nfnet_l0", "regnety_002", "mobilenetv3_small_050",
    "ghostnet_050", "hardcorenas_a", "dla46_c", "hrnet_w18_small", "res2net50_14w_8s", "resnest14d", "skresnet18",
    "repvgg_a0", "mobileone_s0", "cspdarknet53", "ese_vovnet19b_slim", "fastvit_t8", "edgenext_xx_small",
    "selecsls42b", "repghostnet_050", "lambda_resnet26t", "gcresnet33ts", "mobilevit_xxs", "pvt_v2_b0", "tresnet_m",
    "convnext_atto",
)}  # fmt: skip
MANY |= {
    "timm-densenet": timms("densenet121", growth_rate=8, block_config=(2, 2, 2)),
    "timm-resnetv2": timms("resnetv2_50", layers=(1, 1, 1, 1)),
    "timm-same": timms("test_efficientnet", pad_type="same"),
    "timm-vit": timms("vit_tiny_patch16_224", img_size=64),
}
MANY |= {f"smp-{kind.__name__}": smps(kind) for kind in (
    smp.Unet, smp.UnetPlusPlus, smp.MAnet, smp.Linknet, smp.FPN, smp.PSPNet, smp.DeepLabV3Plus, smp.UPerNet,
)}  # fmt: skip
MANY |= {"smp-mobilenet": smps(smp.Unet, "mobilenet_v2"), "smp-efficientnet": smps(smp.FPN, "timm-efficientnet-b0")}


def batch_norms(name, module):
    return isinstance(module, _BatchNorm) or type(module).__name__.startswith("FrozenBatchNorm")


def to(norm):
    return lambda model: convert(model, norm, where=batch_norms) if norm_layers(model) else model


def through(norm):
    def exchange(model):
        chosen = [name for name, layer in norm_layers(model).items() if batch_norms(name, layer)]
        return convert(to(norm)(model), "bn", where=chosen) if chosen else model

    return exchange


def folded(model):
    return fold(model)[0]


def in_turn(*exchanges):
    def exchange(model):
        for each in exchanges:
            model = each(model)
        return model

    return exchange


SAME = {  # exchanges of which nothing may be seen
    "synchronize": synchronize,
    "bin": to("bin"),
    "bn": to("bn"),
    "sn and back": through("sn"),
    "fold": folded,
    "synchronize, fold": in_turn(synchronize, folded),
    "bin, fold": in_turn(to("bin"), folded),
    "synchronize, bin": in_turn(synchronize, to("bin")),
    "bin, synchronize": in_turn(to("bin"), synchronize),
}
ORDERS = {  # before and behind `antialias`
    "synchronize": synchronize,
    "bin": to("bin"),
    "fold": folded,
    "sn and back": through("sn"),
    "synchronize, fold": in_turn(synchronize, folded),
}


def images(model):
    is_video = isinstance(model, video.resnet.VideoResNet)
    large = 64 + 32 * isinstance(model, (torchvision.models.Inception3, Backbone))
    return torch.rand(2, 3, 4, 32, 32) if is_video else torch.rand(2, 3, large, large)


@torch.no_grad()
def outputs(model, x):
    found = copy.deepcopy(model)(x.double())
    return [value for value in torch.utils._pytree.tree_leaves(found) if isinstance(value, torch.Tensor)]


def same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert (a - b).abs().max() <= 1e-8 * b.abs().max().clamp_min(1e-6)


def build(make):
    """A network in evaluation mode and float64 whose norms have weights and statistics that tell them apart."""
    model = make().double().eval()
    for layer in norm_layers(model).values():
        for key, value in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
            if value.is_floating_point():
                wide = key in ("weight", "running_var")
                value.data.uniform_(0.6, 1.4) if wide else value.data.normal_(std=0.1)
    return model


def check(make, same_as=tuple(SAME), orders=tuple(ORDERS)):
    model = build(make)
    x = images(model)
    expected, keys = outputs(model, x), list(model.state_dict())
    for exchange in (SAME[how] for how in same_as):
        same(outputs(exchange(copy.deepcopy(model)), x), expected)
    try:
        blurred = antialias(copy.deepcopy(model))
    except ValueError:
        blurred = None
    if blurred is not None:
        expected_blurred = outputs(blurred, x)
        for exchange in (ORDERS[how] for how in orders):
            same(outputs(exchange(copy.deepcopy(blurred)), x), expected_blurred)
            same(outputs(antialias(exchange(copy.deepcopy(model))), x), expected_blurred)
    assert list(model.state_dict()) == keys
    same(outputs(model, x), expected)


@pytest.mark.parametrize("name", QUICK)
def test_exchanged_networks_are_the_same_functions(name):
    check(QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_many_exchanged_networks_are_the_same_functions(name):
    check(MANY[name], ("sn and back", "fold", "bin, synchronize"), ("bin", "synchronize, fold"))


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("exchange", [synchronize, to("bin"), through("sn")], ids=["synchronize", "bin", "sn and back"])
def test_they_train_alike(name, exchange):
    """One step: loss, gradients of what both have, running averages."""
    model = build(QUICK[name])
    x = images(model).double()
    found = []
    for network in (model, exchange(copy.deepcopy(model))):
        for layer in norm_layers(network).values():
            layer.train()  # dropout and drop path stay out
        y = network(x)
        loss = y.square().sum()
        loss.backward()
        rows = {key: p.grad for key, p in network.named_parameters() if p.grad is not None and "rho" not in key}
        found.append((y, rows, {key: v for key, v in network.state_dict().items() if "running" in key}))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)


# Random networks


class WithReLU(nn.BatchNorm2d):
    def forward(self, x):
        return F.relu(super().forward(x))


def random_norm(draw, channels):
    kinds = [
        lambda: nn.BatchNorm2d(channels, eps=draw(1e-5, 1e-2), momentum=draw(0.1, 0.3, None)),
        lambda: nn.BatchNorm2d(channels, affine=draw(True, False), track_running_stats=draw(True, True, False)),
        lambda: timm.layers.BatchNormAct2d(channels, act_layer=draw(nn.SiLU, nn.ReLU), apply_act=draw(True, False)),
        lambda: torchvision.ops.FrozenBatchNorm2d(channels),
        lambda: WithReLU(channels),
        lambda: nn.SyncBatchNorm(channels),
    ]
    return draw(*kinds)()


class RandomNetwork(nn.Module):
    """Convolutions and norms of all kinds and in all orders, activations as modules and functions, residual or not."""

    def __init__(self, draw):
        super().__init__()
        self.stem, self.blocks, self.plan = nn.Conv2d(3, 8, 3, padding=1), nn.ModuleList(), []
        shared = random_norm(draw, 8)
        for _ in range(draw(2, 3, 4)):
            stride = draw(1, 1, 2)
            conv = draw(
                lambda s: nn.Conv2d(8, 8, 3, s, 1, groups=draw(1, 8), bias=draw(True, False)),
                lambda s: nn.Conv2d(8, 8, 3, s, 1, padding_mode=draw("zeros", "reflect", "circular")),
                lambda s: nn.Conv2d(8, 8, 1, s),
            )(stride)
            norm = draw(shared, random_norm(draw, 8), random_norm(draw, 8))
            order = draw("cna", "nac", "cn", "can")
            named = {"c": ("conv", conv), "n": ("norm", norm), "a": ("act", draw(nn.ReLU(), nn.Hardswish()))}
            self.blocks.append(nn.Sequential())
            for letter in order:
                self.blocks[-1].add_module(*named[letter])
            self.plan.append((draw(True, False) and stride == 1, draw(True, False)))

    def forward(self, x):
        x = self.stem(x)
        for block, (residual, functional) in zip(self.blocks, self.plan, strict=True):
            y = block(x)
            x = F.leaky_relu(y) if functional else y
            x = x + y if residual else x
        return x


@pytest.mark.parametrize("seed", range(8))
def test_random_networks(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*choices):
        return choices[int(torch.randint(len(choices), (1,), generator=generator))]

    check(lambda: RandomNetwork(draw))
