"""Domain-adversarial training (DANN): features that separate classes but not domains.

`DomainAdversarialModule` adapts to a target with unlabelled images. `DomainInvariantModule` uses the training domains
only, to generalise to a domain that is not seen in training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lightning_modules.classification.module import ClassificationModule
from lightning_modules.weights import DISCRIMINATOR, head_of

DOMAINBED_HIDDEN = 256
"""Units of each of DomainBed's two hidden layers (its MLP of width 256 and depth 3)."""
HIDDEN = 1024
"""Units of the discriminator's two hidden layers (Ganin et al., JMLR 2016, section 5.2)."""


class _WithFeatures(ClassificationModule):
    """A classifier with a discriminator of the features before its head."""

    def completed(self) -> None:
        self._features: Tensor | None = None
        head = self.net.get_submodule(head_of(self.net))
        head.register_forward_pre_hook(self._keep_features)
        self.add_module(DISCRIMINATOR, self.made_discriminator(head.in_features))

    def made_discriminator(self, features: int) -> nn.Sequential:
        """A new discriminator, whose input are `features` numbers for each image."""
        raise NotImplementedError

    def _keep_features(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0] if self.training else None


class DomainAdversarialModule(_WithFeatures):
    """A classifier that learns from a labelled source and an unlabelled target (Ganin et al., JMLR 2016).

    Batches are {"source": (images, labels), "target": (images, ...)}. Both go through the network in one batch, so
    batch statistics are those of both domains. A discriminator learns to separate the domains by the features before
    the classifier. Its gradient with respect to these features is reversed and multiplied by `reversal(p)`, where p is
    the completed share of the training or, if the recipe has `reversal_steps`, the number of steps divided by ten
    times that number. Logs `train/loss` (classes), `train/domain_loss` and `train/domain_accuracy` (0.5 if the domains
    cannot be separated). Arguments are those of `ClassificationModule`.
    """

    def made_discriminator(self, features: int) -> nn.Sequential:
        return discriminator(features, self.recipe.discriminator)

    def training_step(self, batch, batch_index: int) -> Tensor:
        (source, labels), target = batch["source"], batch["target"][0]
        scores = self(torch.cat([source, target]))[: len(source)]
        class_loss = F.cross_entropy(scores.float(), labels, label_smoothing=self.recipe.label_smoothing)
        strength = reversal(self._progress())
        features = self._features.to(self.discriminator[0].weight.dtype)  # autocast may have made them 16-bit
        guesses = self.discriminator(_Reversed.apply(features, strength))[:, 0]
        truth = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).to(guesses)
        domain_loss = F.binary_cross_entropy_with_logits(guesses, truth)
        right = ((guesses > 0) == (truth > 0.5)).float().mean()
        self._features = None
        self.log("train/loss", class_loss.detach(), prog_bar=True)
        self.log_dict({"train/domain_loss": domain_loss.detach(), "train/domain_accuracy": right})
        return class_loss + domain_loss

    def fault_of_longer(self, before: Mapping) -> str | None:
        by_length = (
            None if self.recipe.reversal_steps else "the strength of its reversed gradient depends on its length"
        )
        return super().fault_of_longer(before) or by_length

    @property
    def can_be_longer(self) -> bool:
        return super().can_be_longer and bool(self.recipe.reversal_steps)

    def _progress(self) -> float:
        return self.steps / (10 * self.recipe.reversal_steps if self.recipe.reversal_steps else self.recipe.max_steps)


class DomainInvariantModule(_WithFeatures):
    """DANN among the training domains, as in DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).

    A batch has the same number of images of each training domain, one domain after the other
    (`sample_order.FromEach`). Steps alternate. In one, the network minimises the classification loss minus the
    discriminator's loss, so that its features become similar in all domains. In the next, only the discriminator
    learns to separate the domains. Adam does not change parameters without a gradient, so one optimiser is enough. DDP
    does not support this: use one process. Logs `train/domain_loss` and, in the network's steps, `train/loss`.

    Arguments are those of `ClassificationModule`; `data` is the names of the training domains, joined by "+".
    """

    @property
    def domains(self) -> int:
        """The number of training domains."""
        return len(self.data.split("+"))

    def made_discriminator(self, features: int) -> nn.Sequential:
        width = DOMAINBED_HIDDEN
        layers = nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        return nn.Sequential(*layers, nn.Linear(width, self.domains))

    def training_step(self, batch, batch_index: int) -> Tensor:
        images, labels = batch
        scores, features, self._features = self(images), self._features.float(), None
        domains = torch.arange(self.domains, device=labels.device).repeat_interleave(len(labels) // self.domains)
        if self.steps % 2:
            domain_loss = F.cross_entropy(self.discriminator(features.detach()), domains)
            self.log("train/domain_loss", domain_loss.detach())
            return domain_loss
        fixed = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        domain_loss = F.cross_entropy(functional_call(self.discriminator, fixed, (features,)), domains)
        class_loss = F.cross_entropy(scores.float(), labels)
        self.log("train/loss", class_loss.detach(), prog_bar=True)
        self.log("train/domain_loss", domain_loss.detach())
        return class_loss - domain_loss


def discriminator(features: int, hidden: str) -> nn.Sequential:
    """A network from (N, features) to (N, 1) with two hidden layers.

    Args:
        hidden: "dropout": ReLU and dropout after each hidden layer (Ganin et al.). "norm": batch norm and ReLU
            (Transfer-Learning-Library).
    """

    def layer(before: int) -> tuple[nn.Module, ...]:
        if hidden == "norm":
            return nn.Linear(before, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU()
        return nn.Linear(before, HIDDEN), nn.ReLU(), nn.Dropout(0.5)

    return nn.Sequential(*layer(features), *layer(HIDDEN), nn.Linear(HIDDEN, 1))


def reversal(progress: float) -> float:
    """The factor of the reversed gradient: 2 / (1 + exp(-10 p)) - 1 (Ganin et al., section 5.2.2)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class _Reversed(torch.autograd.Function):
    """The identity; its gradient is multiplied by -`strength` (Ganin et al., equations 13 and 14)."""

    @staticmethod
    def forward(ctx, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return -ctx.strength * gradient, None
