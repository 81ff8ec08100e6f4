"""Every backbone family with every norm, anti-aliased or not; which names build a network, and which are refused."""

import copy
import itertools

import pytest
import timm
import torch
import torchvision
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

from lightning_modules.classification.backbones import BACKBONE_FAMILIES, RESNET_RS_BLOCKS, build_backbone, complexity
from normshift import NORMS, BlurPool2d, norm_layers

WITHOUT_NORMS = ("alexnet", "vgg")
DENSE = ("densenet", "cifar-densenet")
NEITHER = ("vgg-bn", "mobilenet-v2", "efficientnet", "cifar-vgg", "cifar-alexnet")  # neither residual stages nor dense
FILTERS = (None, 4)


def takes(family, norm):
    if family in WITHOUT_NORMS:
        return norm == "bn"
    return family not in {"ibn-a": NEITHER, "ibn-b": NEITHER + DENSE}.get(norm, ())


EVERY = [case for case in itertools.product(BACKBONE_FAMILIES, NORMS, FILTERS) if takes(*case[:2])]
REFUSED = [case for case in itertools.product(BACKBONE_FAMILIES, NORMS) if not takes(*case)]
# Tracing a network for the compiler takes seconds: here each family takes one norm, and each norm a turn or more;
# `make test-slow` compiles all of them.
COMPILED = {
    "alexnet": "bn", "vgg": "bn", "vgg-bn": "gn", "resnet": "ibn-b", "resnext": "bn", "wide-resnet": "ibn-a",
    "resnet-d": "syncbn", "resnet-rs": "bn", "se-resnet": "ln", "preresnet": "sn", "densenet": "ibn-a",
    "mobilenet-v2": "in",
    "efficientnet": "gn", "cifar-resnet": "sn", "cifar-resnet-bottleneck": "ibn-b", "cifar-preresnet": "bin",
    "cifar-preresnet-bottleneck": "bn",
    "cifar-wide-resnet": "sn-in-ln", "cifar-resnext": "syncbn", "cifar-densenet": "sn", "cifar-vgg": "bin",
    "cifar-alexnet": "sn",
}  # fmt: skip


def build(family, norm, antialias):
    return build_backbone(**BACKBONE_FAMILIES[family], classes=5, norm=norm, antialias=antialias)


def images(n=2):
    return torch.randn(n, 3, 64, 64)


@torch.no_grad()
def logits(network, x):
    return network.eval()(x)


@pytest.mark.parametrize("family, norm, antialias", EVERY)
def test_every_family_under_every_norm(family, norm, antialias):
    torch.manual_seed(0)
    network, x = build(family, norm, antialias), images().requires_grad_()
    assert any(isinstance(m, BlurPool2d) for m in network.modules()) == (antialias is not None)
    if NORMS[norm].placement == "everywhere":
        assert all(isinstance(layer, type(NORMS[norm](8))) for layer in norm_layers(network).values())
    F.cross_entropy(network(x), torch.tensor([1, 4])).backward()
    gradients = {key: p.grad for key, p in network.named_parameters()} | {"the images": x.grad}
    assert not [key for key, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]
    assert x.grad.abs().max() > 0

    expected = logits(network, x)
    fresh = build(family, norm, antialias)
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(logits(fresh, x), expected)
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():  # a hook or child that still belonged to the first would show
            parameter.zero_()
    assert torch.equal(logits(copied, x), expected)


def check_compiled(family, norm, antialias):
    """A training step in one graph without breaks. The eager backend runs it: what torch's own inductor makes of a
    graph is not the question, and takes it a minute a network.
    """
    torch.manual_seed(0)
    torch._dynamo.reset()
    network, x = build(family, norm, antialias).double(), images().double()  # no activation that rounding could flip
    compiled = torch.compile(copy.deepcopy(network), backend="eager", fullgraph=True)
    outcomes = []
    for model in (network, compiled):
        torch.manual_seed(1)  # the same dropout
        here = x.clone().requires_grad_()
        output = model(here)
        output.square().sum().backward()
        outcomes.append((output.detach(), here.grad))
    for actual, expected in zip(*reversed(outcomes), strict=True):
        assert (actual - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.mark.parametrize("family", BACKBONE_FAMILIES)
def test_every_family_compiles_anti_aliased(family):
    check_compiled(family, COMPILED[family], 4)


def test_every_norm_takes_a_turn_at_the_compiler():
    assert set(COMPILED.values()) == set(NORMS)


@pytest.mark.slow
@pytest.mark.parametrize("family, norm, antialias", EVERY)
def test_every_family_under_every_norm_compiles(family, norm, antialias):
    check_compiled(family, norm, antialias)


@pytest.mark.parametrize("family, norm", REFUSED)
def test_a_norm_that_has_no_place_is_refused(family, norm):
    says = "no batch, instance or group norm layer|does not know where instance norm belongs"
    with torch.device("meta"), pytest.raises(ValueError, match=says):
        build(family, norm, None)


# Names


def test_timm_goes_before_torchvision_and_a_prefix_chooses():
    assert type(build_backbone("resnet18", 7)) is timm.models.resnet.ResNet
    assert type(build_backbone("torchvision/resnet18", 7)) is torchvision.models.ResNet
    with torch.device("meta"):
        assert type(build_backbone("alexnet", 7)) is torchvision.models.AlexNet  # timm has none


@pytest.mark.parametrize("name", ["torchvision/googlenet", "torchvision/inception_v3"])
def test_networks_with_auxiliary_classifiers_give_logits_alone(name):
    with torch.device("meta"):
        network = build_backbone(name, 7)
    assert not any("aux" in key.lower() for key in network.state_dict())


def test_resnet_rs_blocks_are_timms_where_timm_has_the_depth(monkeypatch):
    monkeypatch.setattr("timm.models.resnet._create_resnet", lambda variant, pretrained, **settings: settings["layers"])
    known = {depth: f"resnetrs{depth}" for depth in RESNET_RS_BLOCKS if timm.is_model(f"resnetrs{depth}")}
    assert len(known) == 7
    for depth, name in known.items():
        assert getattr(timm.models.resnet, name)() == RESNET_RS_BLOCKS[depth]
    for depth, blocks in RESNET_RS_BLOCKS.items():
        assert abs(3 * sum(blocks) + 2 - depth) <= 4


def test_a_resnet_rs_that_timm_does_not_have():
    with torch.device("meta"):
        network = build_backbone("resnetrs26", 7, width=0.5)
    assert [len(s) for s in (network.layer1, network.layer2, network.layer3, network.layer4)] == [2, 2, 2, 2]
    assert network.layer1[0].se is not None and isinstance(network.maxpool, nn.Sequential)  # ResNet-RS, not -D
    assert network.conv1[0].out_channels == 16 and network.num_features == 1024


def test_constructors_take_further_arguments():
    network = build_backbone("resnet50", 7, layers=(1, 2, 1, 1))
    assert [len(s) for s in (network.layer1, network.layer2, network.layer3, network.layer4)] == [1, 2, 1, 1]


@pytest.mark.parametrize("norm", NORMS)
def test_our_networks_take_their_options_under_every_norm(norm):
    options = {"squeeze_excitation": True, "averaged_shortcut": True}
    network = build_backbone("cifar_resnet8", 7, norm=norm, antialias=4, **options)
    plain = build_backbone("cifar_resnet8", 7, norm=norm, antialias=4)
    assert len(norm_layers(network)) == len(norm_layers(plain)) + 2  # those of two projections
    assert network.layer1[0].se is not None and plain.layer1[0].se is None
    assert network(images()).shape == (2, 7)


# Regularisers, width and stem


@pytest.mark.parametrize("name", ["resnet18", "torchvision/mobilenet_v2", "torchvision/efficientnet_b0", "densenet121"])
def test_dropout_is_that_of_the_classifier(name):
    with torch.device("meta"):
        network = build_backbone(name, 7, dropout=0.35)
    dropped = [m.p for m in network.modules() if isinstance(m, nn.Dropout)] or [network.drop_rate]
    assert dropped == [0.35]


def test_no_dropout_leaves_the_architectures_own():
    with torch.device("meta"):
        rates = [m.p for m in build_backbone("alexnet", 7).modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.5, 0.5]


def test_stochastic_depth_grows_to_the_last_block():
    network = build_backbone("resnet18", 7, stochastic_depth=0.7)
    rates = [m.drop_prob for m in network.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * k for k in range(1, 8)])  # of eight blocks, the first is always kept
    with torch.device("meta"):
        network = build_backbone("torchvision/efficientnet_b0", 7, stochastic_depth=0.32)
    rates = [m.p for m in network.modules() if isinstance(m, torchvision.ops.StochasticDepth)]
    assert rates == pytest.approx([0.02 * k for k in range(16)])


@pytest.mark.parametrize("name", ["resnetrs50", "resnet50d", "torchvision/mobilenet_v2", "cifar_resnet20"])
def test_width_multiplies_channels(name):
    with torch.device("meta"):
        half, whole = build_backbone(name, 7, width=0.5), build_backbone(name, 7)
    pairs = [(h, w) for h, w in zip(half.modules(), whole.modules(), strict=True) if isinstance(w, nn.BatchNorm2d)]
    ratios = [h.num_features / w.num_features for h, w in pairs]
    if name == "torchvision/mobilenet_v2":  # in multiples of 8, and never fewer than 1280 behind the last block
        ratios = [r for r, (_, w) in zip(ratios, pairs, strict=True) if w.num_features not in (24, 144, 1280)]
    assert ratios == [0.5] * len(ratios) and len(ratios) > 10


@pytest.mark.parametrize("name", ["resnet18", "torchvision/resnet18", "resnet50d", "resnetrs50"])
def test_small_images_keep_their_size_up_to_the_second_stage(name):
    network, seen = build_backbone(name, 7, small_images=True, norm="bin", antialias=3), []
    network.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2:]))
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert seen == [(32, 32)] and network.conv1.kernel_size == (3, 3)


# What it costs


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v2", "alexnet"])
def test_complexity_is_the_published(name):
    """torchvision lists parameters and 1e9 multiply-adds at 224 with its weights."""
    published = next(iter(torchvision.models.get_model_weights(name))).meta
    with torch.device("meta"):
        network = build_backbone(f"torchvision/{name}", 1000)
    parameters, flops = complexity(network, 224)
    assert parameters == published["num_params"]
    assert flops / 1e9 == pytest.approx(published["_ops"], abs=0.002)


def test_complexity_by_hand_leaves_the_network_as_it_was():
    network = build_backbone("cifar_resnet8", 10, norm="sn", antialias=None)
    network.layer1.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    parameters, flops = complexity(network, 32)
    maps = {16: 32 * 32, 32: 16 * 16, 64: 8 * 8}
    convs = [(3, 16), (16, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)]
    assert flops == sum(9 * i * o * maps[o] for i, o in convs) + 64 * 10
    norms = 3 * 16 + 2 * 32 + 2 * 64
    assert parameters == sum(9 * i * o for i, o in convs) + 2 * norms + 7 * 6 + 64 * 10 + 10
    assert network.training and not network.layer1[0].training and network.layer2[0].training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
def test_complexity_counts_blurs_and_dense_convolutions_under_every_norm(norm):
    plain = complexity(build_backbone("cifar_resnet8", 10, norm=norm), 32)
    antialiased = complexity(build_backbone("cifar_resnet8", 10, norm=norm, antialias=4), 32)
    assert antialiased[0] == plain[0] and antialiased[1] > plain[1]


# Weights


@pytest.fixture
def published(monkeypatch):
    """Replaces torchvision's download of ResNet-18 by known weights."""
    torch.manual_seed(3)
    state, asked = torchvision.models.resnet18().state_dict(), []

    def download(url, *args, **settings):
        asked.append(url)
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    return state, asked


@pytest.mark.parametrize("classes", [1000, 7])
def test_published_weights_and_a_fresh_head(published, classes):
    state, asked = published
    ours = build_backbone("torchvision/resnet18", classes, pretrained=True).state_dict()
    assert len(asked) == 1
    different = {key for key in state if ours[key].shape != state[key].shape or not torch.equal(ours[key], state[key])}
    assert different == (set() if classes == 1000 else {"fc.weight", "fc.bias"})


def test_a_tag_chooses_among_published_weights(published):
    build_backbone("torchvision/resnet18.IMAGENET1K_V1", 7, pretrained=True)
    assert published[1] == [torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url]
    with pytest.raises(ValueError, match="no weights 'V9' of resnet18: choose from IMAGENET1K_V1"):
        build_backbone("torchvision/resnet18.V9", 7, pretrained=True)


def test_pretrained_weights_are_converted_with_the_network(published):
    ours = build_backbone("torchvision/resnet18", 7, pretrained=True, norm="sn", antialias=4).state_dict()
    assert torch.equal(ours["layer2.0.conv1.weight"], published[0]["layer2.0.conv1.weight"])


@pytest.mark.parametrize(
    "name, says", [("resnet18", "timm could not get"), ("torchvision/resnet18", "torchvision could")]
)
def test_a_failed_download_ends_in_one_sentence(monkeypatch, name, says):
    def download(*args, **settings):
        raise OSError("no route to host\nand a long trace")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", download)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(ValueError, match=f"{says}.*: no route to host$"):
        build_backbone(name, 7, pretrained=True)


# What cannot be


@pytest.mark.parametrize(
    "name, settings, says",
    [
        ("resnet5O", {}, "unknown backbone 'resnet5O': there is .*resnet50"),
        ("torchvision/resnet5", {}, "unknown backbone .*torchvision/resnet50"),
        ("qqqqqqqq", {}, "no name like it"),
        ("resnetrs99", {}, "ResNet-RS has depths 26, 50"),
        ("cifar_resnet21", {}, "cannot be"),
        ("resnet18", {"norm": "nb"}, "unknown norm 'nb'"),
        ("resnet18", {"antialias": 8}, "filter_size is 1 to 7"),
        ("resnet18", {"dropout": 1.0}, r"dropout is a probability in \[0, 1\)"),
        ("resnet18", {"stochastic_depth": -0.1}, "stochastic_depth is a probability"),
        ("resnet18", {"width": 0.0}, "positive factor"),
        ("resnet18", {"bogus": 3}, r"resnet18 does not take bogus \(bogus=3\)"),
        ("densenet121", {"stochastic_depth": 0.1}, "densenet121 does not take stochastic depth"),
        ("vgg11_bn", {"stochastic_depth": 0.1}, "does not take stochastic depth"),
        ("cifar_vgg11", {"stochastic_depth": 0.1}, "no residual blocks"),
        ("torchvision/resnet18", {"stochastic_depth": 0.1}, "does not take stochastic depth.* Try timm's resnet18"),
        ("torchvision/resnet18", {"dropout": 0.1}, "does not take dropout"),
        ("alexnet", {"width": 0.5}, "alexnet does not take another width"),
        ("efficientnet_b0", {"width": 0.5}, "efficientnet_b0 cannot be built at width 0.5"),
        ("cifar_resnet8", {"layers": (1, 1, 1)}, r"^cifar_resnet8 does not take layers \(layers=\(1, 1, 1\)\)\.$"),
        ("cifar_resnet11", {"squeeze_excitation": True}, "has bottlenecks, which do not take squeeze_excitation"),
        ("cifar_resnet8", {"pretrained": True}, "no published weights"),
        ("resnetrs300", {"pretrained": True}, "resnetrs300 has no published weights"),
        ("resnet18", {"pretrained": True, "width": 0.5}, "no published weights"),
        ("test_efficientnet", {"small_images": True}, "test_efficientnet has no residual network's stem"),
        ("cifar_resnet8", {"small_images": True}, "no residual network's stem"),
    ],
)
def test_what_cannot_be_is_said_in_words(name, settings, says):
    with pytest.raises(ValueError, match=says):
        build_backbone(name, 7, **settings)


def test_stochastic_depth_by_stage():
    """All blocks of stage k, also the first, have (k + 1) / (stages + 1) of the rate."""
    net = build_backbone("resnetrs50", 10, width=0.25, stochastic_depth=0.1, stochastic_depth_by="stage")
    rates = [{round(block.drop_path.drop_prob, 12) for block in getattr(net, f"layer{k}")} for k in (1, 2, 3, 4)]
    assert rates == [{0.04}, {0.06}, {0.08}, {0.1}]
    net = build_backbone("cifar_resnet8", 10, stochastic_depth=0.4, stochastic_depth_by="stage")
    assert [getattr(net, f"layer{k}")[0].drop_path.drop_prob for k in (1, 2, 3)] == pytest.approx([0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match="efficientnet_b0 has no residual stages layer1"):
        build_backbone("efficientnet_b0", 10, stochastic_depth=0.1, stochastic_depth_by="stage")
    with pytest.raises(ValueError, match="'block' or 'stage', not 'layer'"):
        build_backbone("resnet18", 10, stochastic_depth_by="layer")
