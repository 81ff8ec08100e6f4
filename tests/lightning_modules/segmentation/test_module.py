import dataclasses

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from datamodules.segmentation.domains import Domain
from datamodules.segmentation.labels import STREET
from datamodules.segmentation.sets.camvid import FOLD as CAMVID_FOLD
from datamodules.segmentation.sets.synthia import USUAL as SYNTHIA_EVALUATED
from lightning_modules.segmentation.module import SegmentationModule, class_ious, mean_iou, pixel_loss
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES
from normshift import convert, norm_layers
from normshift.layers import IBN2d, InstanceNorm

SMOKE = SEGMENTATION_RECIPES["smoke"]
SOURCE = Domain("source", [], STREET, tuple(range(19)), {})


def module(norm="bn", domains=(SOURCE,), recipe=SMOKE, **options) -> SegmentationModule:
    torch.manual_seed(0)
    return SegmentationModule(recipe, norm, list(domains), **options)


def confusion(truth: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    matrix = torch.zeros(19, 19, dtype=torch.long)
    for t, p in zip(truth.tolist(), predicted.tolist(), strict=True):
        matrix[t, p] += 1
    return matrix


def test_class_ious_by_hand_and_by_library():
    truth = torch.tensor([0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 2, 2])
    ious = class_ious(confusion(truth, predicted), tuple(range(19)))
    assert ious == pytest.approx({0: 2 / 3, 1: 1 / 3, 2: 1 / 2})  # classes that do not occur do not count
    library = multiclass_jaccard_index(predicted, truth, num_classes=3, average="macro")
    assert mean_iou(ious) == pytest.approx(library.item())


def test_only_evaluated_classes_count():
    truth, predicted = torch.tensor([0, 0, 14, 14]), torch.tensor([0, 0, 0, 14])
    assert class_ious(confusion(truth, predicted), (0, 13)) == pytest.approx({0: 2 / 3})
    assert np.isnan(mean_iou({}))


def test_robustnets_mean_is_over_all_classes():
    """SYNTHIA has no terrain, truck or train; where each is predicted once, RobustNet's mean is 16/19 of the usual."""
    absent = {9, 14, 16}
    truth = torch.tensor([c for c in range(19) if c not in absent] * 4)
    predicted = truth.clone()
    predicted[:3] = torch.tensor(sorted(absent))
    matrix = confusion(truth, predicted)
    usual = class_ious(matrix, SYNTHIA_EVALUATED)
    published = class_ious(matrix, tuple(range(19)), absent=True)
    assert len(usual) == 16 and len(published) == 19 and {published[c] for c in absent} == {0}
    assert mean_iou(published) == pytest.approx(16 / 19 * mean_iou(usual))
    unseen = class_ious(confusion(truth, truth), tuple(range(19)), absent=True)
    assert len(unseen) == 16 and mean_iou(unseen) == 1  # neither there nor predicted: not counted


def test_results_say_which_classes_their_mean_is_over():
    synthia = Domain("synthia", [], STREET, SYNTHIA_EVALUATED, {})
    usual, published = (
        module(domains=[SOURCE, synthia], recipe=dataclasses.replace(SMOKE, absent_classes=absent))
        for absent in (False, True)
    )
    for net in (usual, published):
        net.evaluation = [{0: 0.5}, {0: 0.25, 9: 0.0}]
    means = [row for row in usual.results() if row["measure"] == "miou"]
    assert [row["mean_over"] for row in means] == [f"{n} classes, where they occur" for n in (19, 16)]
    zeros = "19 classes, 0 for one that is predicted but does not occur"
    assert [row["mean_over"] for row in published.results() if row["measure"] == "miou"] == [zeros] * 2


def test_results_are_a_row_a_value():
    """By hand: one class with IoU 0.5, mean 0.5; two classes with 0.25 and 0, mean 0.125 and chance 1/2."""
    net = module(domains=[SOURCE, Domain("synthia", [], STREET, SYNTHIA_EVALUATED, {})])
    net.evaluation = [{0: 0.5}, {0: 0.25, 9: 0.0}]
    rows = [(row["domain"], row["role"], row["measure"], row["value"]) for row in net.results()]
    assert rows == [
        (SOURCE.name, "source", "miou", 0.5),
        (SOURCE.name, "source", "iou/road", 0.5),
        ("synthia", "target", "miou", 0.125),
        ("synthia", "target", "iou/road", 0.25),
        ("synthia", "target", "iou/terrain", 0.0),
        ("synthia", "target", "chance", 0.5),
    ]
    assert all((row["part"], row["condition"]) == ("clean", "clean") for row in net.results())


def test_validation_folds_merged_classes_and_ignores_255():
    """On CamVid a predicted bus is a car and a predicted rider part of a bicycle; void pixels count for nobody."""
    camvid = Domain("camvid", [], STREET, (0, 13, 18), CAMVID_FOLD)
    net = module(domains=[SOURCE, camvid])
    bus, rider, road, car, bicycle = 15, 12, 0, 13, 18
    predicted = torch.tensor([[bus, rider, road, road]])
    truth = torch.tensor([[[car, bicycle, road, 255]]])
    net._whole = lambda images: torch.nn.functional.one_hot(predicted, 19).permute(2, 0, 1)[None].float()
    net.validation_step((torch.zeros(1, 3, 1, 4), truth), 0, 1)
    assert class_ious(net.confusion[1].compute(), camvid.evaluated) == {0: 1.0, 13: 1.0, 18: 1.0}
    net.validation_step((torch.zeros(1, 3, 1, 4), truth), 0, 0)
    assert class_ious(net.confusion[0].compute(), SOURCE.evaluated) == {0: 1.0, 13: 0.0, 18: 0.0}


def kinds(part) -> set[str]:
    return {type(layer).__name__ for layer in norm_layers(part).values()}


def test_norms_go_where_they_are_sent():
    net = module("sn")
    assert kinds(net.net.encoder) == kinds(net.net.decoder) == kinds(net.auxiliary) == {"SwitchNorm2d"}
    net = module("sn", norm_in="decoder")
    assert kinds(net.net.encoder) == {"BatchNorm2d"} and kinds(net.net.decoder) == kinds(net.auxiliary) == {
        "SwitchNorm2d"
    }
    net = module("ibn-a")
    halved = [layer for layer in norm_layers(net.net.encoder).values() if isinstance(layer, IBN2d)]
    assert len(halved) == 6 and kinds(net.net.decoder) == {"BatchNorm2d"}  # two blocks in each of three stages
    instance = [layer for layer in norm_layers(module("ibn-b").net.encoder).values() if isinstance(layer, InstanceNorm)]
    assert len(instance) == 3  # the stem, and behind two additions


def test_the_loss_is_cross_entropy_on_output_and_auxiliary_head():
    net = module().eval()  # evaluation mode: no dropout, no batch statistics
    images, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 19, (2, 64, 96))
    labels[0, :20] = 255
    features = net.net.encoder(images)
    aux = torch.nn.functional.interpolate(net.auxiliary(features[-2]), (64, 96), mode="bilinear")
    losses = [torch.nn.functional.cross_entropy(scores, labels, ignore_index=255) for scores in (net.net(images), aux)]
    assert net.model_step(images, labels).item() == pytest.approx((losses[0] + 0.4 * losses[1]).item(), rel=1e-5)


def test_without_weight_there_is_no_auxiliary_head_and_classes_weigh_as_told():
    weights = np.linspace(0.5, 2, 19)
    net = module("sn", recipe=dataclasses.replace(SMOKE, auxiliary_weight=0.0), class_weights=weights.tolist()).eval()
    assert net.auxiliary is None and len(net.compiled_parts()) == 3
    images, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 19, (2, 64, 96))
    labels[0, :20] = 255
    single = torch.nn.functional.cross_entropy(net.net(images).double(), labels, ignore_index=255, reduction="none")
    by_hand = (single * torch.tensor([*weights, *[0] * 237])[labels]).sum() / (labels != 255).sum()
    assert net.model_step(images, labels).item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert "class_weights" not in net.state_dict() and net.hparams["class_weights"] == weights.tolist()


def test_width_and_decoder_channels():
    recipe = dataclasses.replace(SMOKE, arch="upernet", output_stride=32, width=0.5, decoder_channels=48)
    net = module(recipe=recipe).net
    assert list(net.encoder.out_channels)[-4:] == [32, 64, 128, 256]
    assert net.segmentation_head[0].in_channels == 48
    assert module(recipe=dataclasses.replace(recipe, arch="fpn")).net.decoder.p5.out_channels == 48


def test_a_batch_without_a_known_pixel_costs_nothing():
    loss = module().model_step(torch.randn(2, 3, 64, 96), torch.full((2, 64, 96), 255))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("norm", ["sn", "bin", "ibn-a", "ibn-b", "in", "gn"])
def test_one_image_trains_through_aspps_pooling_branch(norm):
    """The pooling branch normalises a 1x1 map; with one image, batch norm has one value there and raises an error."""
    net = module(norm, norm_in="both")
    if norm.startswith("ibn"):
        convert(net.net.decoder, "sn")
    loss = net.model_step(torch.randn(1, 3, 64, 96), torch.randint(0, 19, (1, 64, 96)))
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_any_image_size_is_evaluated():
    net = module().eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, 50, 71)).shape == (1, 19, 50, 71)


def test_sliding_windows_of_a_pixelwise_network_give_what_the_whole_gives():
    net = module(recipe=dataclasses.replace(SMOKE, evaluation="sliding", crop=(64, 64))).eval()
    net._whole = lambda images: images.repeat(1, 7, 1, 1)[:, :19] * 2
    images = torch.randn(1, 3, 100, 150)
    torch.testing.assert_close(net(images), net._whole(images))


def test_learning_rates_warm_up_and_decay():
    recipe = dataclasses.replace(SMOKE, lr=0.1, warmup_steps=3, max_steps=10)
    configured = module("bin", recipe=recipe).configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(10):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    weights, rho = np.array(rates).T
    np.testing.assert_allclose(weights[:3], [0.025, 0.05, 0.075])
    np.testing.assert_allclose(weights[3:], [0.1 * (1 - t / 10) ** 0.9 for t in range(3, 10)])
    np.testing.assert_allclose(rho, 10 * weights)


@pytest.mark.parametrize("arch", ["unet", "fpn", "pspnet", "deeplabv3"])
def test_other_architectures_train(arch):
    net = module("sn", recipe=dataclasses.replace(SMOKE, arch=arch))
    assert net.model_step(torch.randn(2, 3, 64, 96), torch.randint(0, 19, (2, 64, 96))).isfinite()


def test_encoder_weights_come_from_a_published_checkpoint(tmp_path):
    donor = module("ibn-a").net.encoder.model.state_dict()
    published = {f"module.{key}": torch.randn_like(v) if v.is_floating_point() else v for key, v in donor.items()}
    torch.save({"state_dict": published | {"module.fc.weight": torch.zeros(1000, 512)}}, tmp_path / "ibn.pth")
    net = module("ibn-a", weights=str(tmp_path / "ibn.pth"))
    for key, value in net.net.encoder.model.state_dict().items():
        torch.testing.assert_close(value, published[f"module.{key}"])


def test_squeeze_and_excitation_of_the_published_networks_loads(tmp_path):
    """IBN-Net's SE layers are linear layers without biases, named se.fc.0 and se.fc.2."""
    recipe = dataclasses.replace(SMOKE, backbone="seresnet18")
    donor = module("ibn-a", recipe=recipe).net.encoder.model.state_dict()
    published = {}
    for key, value in donor.items():
        if ".se.fc" in key:
            if key.endswith("weight"):
                published[key.replace("fc1", "fc.0").replace("fc2", "fc.2")] = value.flatten(1)
        else:
            published[key] = value
    torch.save(published | {"fc.weight": torch.zeros(1000, 512)}, tmp_path / "se.pth")
    net = module("ibn-a", recipe=recipe, weights=str(tmp_path / "se.pth"))
    key = "layer1.0.se.fc1.weight"
    torch.testing.assert_close(net.net.encoder.model.state_dict()[key], donor[key])


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk\.pth cannot be read as a checkpoint"):
        module(weights=str(tmp_path / "junk.pth"))


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({"backbone": "resnet19"}, {}, "unknown backbone 'resnet19': timm has .*resnet1"),
        ({"arch": "deeplabv4"}, {}, "unknown architecture 'deeplabv4': choose from unet, .*deeplabv3plus"),
        ({}, {"norm_in": "neck"}, "norm_in is encoder, decoder or both"),
        ({}, {"norm": "ibn-a", "norm_in": "decoder"}, "it cannot go into the decoder alone"),
        ({"backbone": "efficientnet_b0"}, {"norm": "ibn-a"}, "ibn-a does not know .*where="),
        ({"backbone": "efficientnet_b0", "width": 0.5}, {}, "efficientnet_b0 cannot be built at width 0.5"),
        ({"arch": "robustnet", "backbone": "resnet50", "width": 0.5}, {}, "robustnet has its published channels"),
        ({"arch": "unet", "decoder_channels": 32}, {}, "unet has no decoder of one width: .* upernet"),
    ],
)
def test_what_cannot_be_built_says_so(changes, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        module(recipe=dataclasses.replace(SMOKE, **changes), **options)


def test_the_loss_is_the_same_by_deterministic_operations():
    """By hand: two counted pixels of three classes, one of which is right by ln 2 more than the others."""
    scores = torch.zeros(1, 3, 1, 3)
    scores[0, 1, 0, 0] = np.log(2)
    scores.requires_grad_()
    labels = torch.tensor([[[1, 2, 255]]])
    found = []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            loss = pixel_loss(scores, labels)
            found.append((loss.item(), torch.autograd.grad(loss, scores)[0]))
        finally:
            torch.use_deterministic_algorithms(False)
    assert [loss for loss, _ in found] == pytest.approx([(np.log(4 / 2) + np.log(3)) / 2] * 2)
    torch.testing.assert_close(found[0][1], found[1][1])
