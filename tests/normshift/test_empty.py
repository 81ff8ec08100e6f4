"""Empty batches, which occur in detectors, pass through as in torch's norms."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from normshift import (
    BatchInstanceNorm1d,
    BatchInstanceNorm2d,
    BatchInstanceNorm3d,
    BlurPool2d,
    IBN2d,
    SwitchNorm1d,
    SwitchNorm2d,
    SwitchNorm3d,
    convert,
    synchronize,
)
from normshift.layers import BatchNorm, InstanceNorm1d, InstanceNorm2d
from tests.normshift.agreement import close
from tests.normshift.passes import rows
from tests.normshift.written_out import randomize

# name -> (how to make the layer, the shape of a batch of none)
LAYERS = {
    "sn": (lambda: SwitchNorm2d(6), (0, 6, 5, 4)),
    "sn-in-gn": (lambda: SwitchNorm2d(6, statistics=("in", "gn"), groups=3), (0, 6, 5, 4)),
    "sn-correction": (lambda: SwitchNorm2d(6, correction=1), (0, 6, 1, 1)),
    "sn-1d": (lambda: SwitchNorm1d(6), (0, 6)),
    "sn-3d": (lambda: SwitchNorm3d(6), (0, 6, 2, 3, 2)),
    "bin": (lambda: BatchInstanceNorm2d(6), (0, 6, 5, 4)),
    "bin-1d": (lambda: BatchInstanceNorm1d(6), (0, 6, 3)),
    "bin-3d": (lambda: BatchInstanceNorm3d(6), (0, 6, 2, 3, 2)),
    "in": (lambda: InstanceNorm2d(6), (0, 6, 5, 4)),
    "in-1d": (lambda: InstanceNorm1d(6), (0, 6)),
    "ibn": (lambda: IBN2d(6), (0, 6, 5, 4)),
    "ibn-last": (lambda: IBN2d(6, instance_first=False), (0, 6, 5, 4)),
    "bn": (lambda: BatchNorm(6), (0, 6, 5, 4)),
    "empty maps": (lambda: SwitchNorm2d(6), (2, 6, 0, 4)),
    "empty maps under ibn": (lambda: IBN2d(6), (2, 6, 5, 0)),
    "torch's bn": (lambda: nn.BatchNorm2d(6), (0, 6, 5, 4)),
    "torch's gn": (lambda: nn.GroupNorm(3, 6), (0, 6, 5, 4)),
    "torch's bn of empty maps": (lambda: nn.BatchNorm2d(6), (2, 6, 0, 4)),
}
every_layer = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


def passes_through(layer, x, call=None):
    """Forward and backward: shape, layout and type fit, gradients are 0, running averages do not change."""
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    x = x.requires_grad_()
    y = (layer if call is None else call)(x)
    assert y.shape == x.shape and y.dtype == x.dtype and y.stride() == x.stride()
    y.sum().backward()
    assert x.grad.shape == x.shape
    for name, p in layer.named_parameters():
        assert p.grad is not None and p.grad.eq(0).all(), name
    for name, buffer in layer.named_buffers():
        if name == "num_batches_tracked" and isinstance(layer, nn.BatchNorm2d):
            continue  # torch's counts it
        assert torch.equal(buffer, before[name]), name


@every_layer
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_passes_through(backend, make, shape, training):
    layer = randomize(make()).train(training)
    passes_through(layer, torch.randn(shape))


@pytest.mark.parametrize("make", [SwitchNorm2d, BatchInstanceNorm2d, IBN2d])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_in_other_types_and_layouts(backend, make, training):
    layer = randomize(make(6)).train(training)
    passes_through(layer, rows(torch.randn(0, 6, 5, 4)))
    with torch.autocast("cpu", torch.bfloat16):
        passes_through(layer, torch.randn(0, 6, 5, 4, dtype=torch.bfloat16))
    passes_through(copy.deepcopy(layer).double(), torch.randn(0, 6, 5, 4, dtype=torch.float64))
    x = torch.randn(0, 6, 5, 4, requires_grad=True)
    (dx,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    assert torch.autograd.grad(dx.sum(), x, allow_unused=True)[0].shape == x.shape


@pytest.mark.parametrize("make", [SwitchNorm2d, BatchInstanceNorm2d, IBN2d, InstanceNorm2d])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_compiled(make, training):
    torch._dynamo.reset()
    layer = randomize(make(6)).train(training)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    passes_through(layer, torch.randn(0, 6, 5, 4), compiled)


def test_a_batch_after_one_of_none_is_averaged_as_the_first():
    layers = SwitchNorm2d(6, momentum=None), nn.BatchNorm2d(6, momentum=None)
    x = torch.randn(4, 6, 3, 3) + 5
    layers[0](torch.randn(0, 6, 3, 3))
    for layer in layers:
        layer(x)
    close(layers[0].running_mean, layers[1].running_mean, 1e-6)


def test_blur_lets_no_images_through():
    for channels_last in (False, True):
        x = torch.randn(0, 6, 8, 8)
        x = (rows(x) if channels_last else x).requires_grad_()
        y = BlurPool2d(6)(x)
        y.sum().backward()
        assert y.shape == (0, 6, 4, 4) and x.grad.shape == x.shape


# ----------------------------------------------------------------------------------------------------------- processes

SYNCED = {"sn": SwitchNorm2d, "sn-correction": lambda c: SwitchNorm2d(c, correction=1), "bin": BatchInstanceNorm2d}
SYNCED |= {"ibn": IBN2d, "bn": BatchNorm, "sn-cumulative": lambda c: SwitchNorm2d(c, momentum=None)}


def case(name, dtype=torch.float64):
    """A network, and one batch for the process that has any."""
    torch.manual_seed(0)
    layer = randomize(SYNCED[name](6).to(dtype))
    return synchronize(nn.Sequential(InstanceNorm2d(6).to(dtype), layer)), torch.randn(3, 6, 4, 3, dtype=dtype)


def step(model, x):
    x = x.requires_grad_()
    y = model(x)
    y.square().sum().backward()
    if x.dtype == torch.float64:  # twice differentiated, too
        (dx,) = torch.autograd.grad(model.eval()(x).pow(3).sum(), x, create_graph=True)
        dx.square().sum().backward()
        model.train()
        (dx,) = torch.autograd.grad(model(x).pow(3).sum(), x, create_graph=True)
        dx.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return y.detach(), x.grad, gradients, {name: b.clone() for name, b in model.named_buffers()}


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    found = {}
    for name in SYNCED:
        for dtype in (torch.float32, torch.float64):
            for empty in (1, 0, None):
                model, x = case(name, dtype)
                share = x[:0] if empty is None or rank == empty else x
                found[name, dtype, empty] = step(model, share)
        model, x = case(name)
        found[name, "maps"] = step(model, x if rank else torch.randn(2, 6, 0, 3, dtype=torch.float64))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def same(actual, expected):
    tolerance = 1e-8 if expected.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * max(1, float(expected.abs().max())))


@pytest.mark.slow
def test_an_empty_share_takes_part(tmp_path):
    """The other process computes the same as alone; both get the same averages. If all are empty, nothing changes."""
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for key in found[0]:
        model, x = case(key[0], torch.float64 if key[1] == "maps" else key[1])
        if key[-1] is None:
            before = {name: b.clone() for name, b in model.named_buffers()}
            for part in found:
                y, dx, gradients, buffers = part[key]
                assert y.shape == dx.shape == (0, 6, 4, 3)
                assert all(g is None or g.eq(0).all() for g in gradients.values())
                assert all(torch.equal(b, before[name]) for name, b in buffers.items())
            continue
        y, dx, gradients, buffers = step(model, x)
        one, none = found[::-1] if key[-1] in (0, "maps") else found
        assert none[key][0].numel() == none[key][1].numel() == 0
        same(one[key][0], y)
        same(one[key][1], dx)
        for name, gradient in gradients.items():
            same(one[key][2][name], gradient)
            assert none[key][2][name].eq(0).all()
        for name, buffer in buffers.items():
            same(one[key][3][name], buffer)
            same(none[key][3][name], buffer)


# ------------------------------------------------------------------------------------------------------------ detectors


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", ["sn", "bin", "in", "gn"])
def test_a_detector_trains_on_an_image_without_boxes(norm):
    from torchvision.models import detection, resnet18
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops import MultiScaleRoIAlign, misc

    class Head(nn.Sequential):
        """Norms behind the boxes, where none may come: torchvision's `FastRCNNConvFCHead`, smaller."""

        def __init__(self):
            super().__init__(
                misc.Conv2dNormActivation(256, 8, norm_layer=nn.BatchNorm2d), nn.Flatten(), nn.Linear(8 * 9, 16)
            )

    torch.manual_seed(0)
    backbone = _resnet_fpn_extractor(resnet18(), 5)
    model = detection.FasterRCNN(
        backbone,
        box_head=Head(),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(16, 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 3, 2),
        min_size=64,
        max_size=96,
        rpn_post_nms_top_n_train=20,
    )
    model = convert(model, norm)
    targets = [
        {"boxes": torch.empty(0, 4), "labels": torch.empty(0, dtype=torch.long)},
        {"boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]), "labels": torch.tensor([1])},
    ]
    for some in (targets, targets[:1]):
        losses = model([torch.rand(3, 64, 64) for _ in some], some)
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    features = {key: value[:0] for key, value in model.backbone(torch.rand(2, 3, 64, 64)).items()}
    boxes = [torch.empty(0, 4)] * 2
    pooled = model.roi_heads.box_roi_pool(features | model.backbone(torch.rand(2, 3, 64, 64)), boxes, [(64, 64)] * 2)
    assert model.roi_heads.box_head(pooled).shape == (0, 16)
