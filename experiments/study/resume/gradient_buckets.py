"""The order in which several processes add up gradients, the same in a resumed training as in a whole one."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch.nn.parallel import DistributedDataParallel


class SameBuckets(pl.Callback):
    """Lets DistributedDataParallel order its buckets of gradients before the first step.

    By itself it does so after the first step, by the order in which that step's gradients came. With more than two
    processes the order of a sum depends on the place in a bucket, so that the step after a resume would round
    differently. Here gradients of a sum of all parameters come first, in an order that depends on the network alone.
    """

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        ddp = trainer.strategy.model
        if not isinstance(ddp, DistributedDataParallel) or ddp.find_unused_parameters:  # then it never orders anew
            return
        forward, wrapped = ddp.module.forward, ddp.module
        used = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
        wrapped.forward = lambda: torch.stack([parameter.sum() for parameter in used]).sum()  # type: ignore
        try:
            ddp().backward()
        finally:
            wrapped.forward = forward
        for parameter in used:
            parameter.grad = None
