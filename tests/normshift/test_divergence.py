"""Feature divergence compared with separately computed Kullback-Leibler divergences of Gaussians."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from normshift import SwitchNorm2d, convert, feature_divergence


class OneLayer(nn.Sequential):
    """A norm in evaluation mode that changes nothing: its output is the input."""

    def __init__(self, channels=3):
        super().__init__(
            nn.BatchNorm2d(channels, eps=1e-12)
        )  # not 0, which torch 2.11 refuses; 1 + eps is 1 in float32


def batches(images, size=4):
    return DataLoader(TensorDataset(images, torch.zeros(len(images))), batch_size=size)


def kl(mean_a, var_a, mean_b, var_b):
    """KL(a || b) of two Gaussians, in nats."""
    return 0.5 * (math.log(var_b / var_a) + (var_a + (mean_a - mean_b) ** 2) / var_b - 1)


def test_one_layer_is_the_symmetric_divergence_of_two_gaussians():
    a, b = torch.randn(7, 3, 4, 5), 1 + 2 * torch.randn(9, 3, 4, 5)
    (record,) = feature_divergence(OneLayer(), batches(a), batches(b), eps=0.0)
    expected = []
    for channel in range(3):
        means_a, means_b = (x[:, channel].double().mean((1, 2)) for x in (a, b))
        gaussians = means_a.mean().item(), means_a.var().item(), means_b.mean().item(), means_b.var().item()
        expected.append(kl(*gaussians) + kl(*gaussians[2:], *gaussians[:2]))
    assert record.per_channel.tolist() == pytest.approx(expected, rel=1e-6)
    assert record.total == pytest.approx(sum(expected), rel=1e-6)
    assert record.mean == pytest.approx(sum(expected) / 3, rel=1e-6)
    assert (record.layer, record.depth) == ("0", 0)


def test_hand_worked():
    """Means 0, 2 against 4, 6: both variances 2 and the means 4 apart, 2 * 16 / (2 * 2) = 8 nats."""
    a, b = (torch.tensor(v).reshape(2, 1, 1, 1).expand(2, 1, 3, 3) for v in ([0.0, 2.0], [4.0, 6.0]))
    (record,) = feature_divergence(OneLayer(1), [a], [b], eps=0.0)
    assert record.total == pytest.approx(8.0)


def test_zero_for_equal_domains_and_symmetric_for_others():
    model = convert(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)), "sn"
    )
    a, b = torch.randn(6, 3, 8, 8), torch.rand(6, 3, 8, 8)
    assert [r.total for r in feature_divergence(model, batches(a), batches(a))] == [0.0, 0.0]
    there, back = feature_divergence(model, batches(a), batches(b)), feature_divergence(model, batches(b), batches(a))
    assert [r.layer for r in there] == ["1", "4"]
    for one, other in zip(there, back, strict=True):
        assert one.total > 0
        assert one.total == pytest.approx(other.total, rel=1e-9)


def test_batch_size_does_not_matter():
    model, a, b = OneLayer(), torch.randn(7, 3, 4, 4), torch.rand(7, 3, 4, 4)
    (one,), (other,) = (feature_divergence(model, batches(a, n), batches(b, n)) for n in (1, 7))
    assert one.total == pytest.approx(other.total, rel=1e-5)


def test_dead_channels_count_as_no_divergence():
    model = OneLayer(2)
    nn.init.zeros_(model[0].weight)
    (record,) = feature_divergence(model, batches(torch.randn(4, 2, 3, 3)), batches(torch.rand(4, 2, 3, 3)))
    assert record.per_channel.tolist() == [0.0, 0.0]


def test_chosen_layers_of_any_kind_and_vectors():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5), nn.BatchNorm1d(5))
    a, b = torch.randn(6, 3, 8, 8), torch.rand(6, 3, 8, 8)
    records = feature_divergence(model, batches(a), batches(b), layers=["0", "4"])
    assert [(r.layer, r.depth, len(r.per_channel)) for r in records] == [("0", 0, 4), ("4", 1, 5)]


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), SwitchNorm2d(4), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model.train()
    model[2].eval()  # as when fine-tuning
    modes = [m.training for m in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    feature_divergence(model, batches(torch.randn(4, 3, 5, 5)), batches(torch.randn(4, 3, 5, 5)))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_modes_and_hooks_are_put_back_after_an_error():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    with pytest.raises(RuntimeError):
        feature_divergence(model, [torch.randn(2, 5, 4, 4)], [torch.randn(2, 3, 4, 4)])
    assert model.training and model[1].training
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("count", [0, 1])
def test_one_image_has_no_variance(count):
    many, few = torch.randn(4, 3, 4, 4), torch.randn(count, 3, 4, 4)
    few = [few] if count else []
    for pair in ((batches(many), few), (few, batches(many))):
        with pytest.raises(ValueError, match=f"two images or more of a domain, got {count}"):
            feature_divergence(OneLayer(), *pair)
