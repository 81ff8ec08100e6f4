"""Which half of a noisy square is the brighter one? A whole task, as small as one can be."""

import torch
from pytorch_lightning import LightningDataModule
from torch import nn
from torch.utils.data import TensorDataset

from experiments.study.task import Pace, Task
from lightning_modules.examples import Example
from lightning_modules.measures import Measure, register_measure
from lightning_modules.study_module import StudyModule
from normshift import convert

HITS = register_measure(Measure("hits", "squares told right"))
HALVES = ("left", "right")


class Brighter(StudyModule):
    headline, measures = HITS.name, (HITS.name,)

    def __init__(self, norm: str, lr: float):
        super().__init__()
        self.save_hyperparameters()
        self.net = convert(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)), norm)

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch, index):  # all squares are one batch
        hits = (self.net(batch[0]).argmax(1) == batch[1]).float().mean().item()
        self.log(f"squares/{HITS.name}", hits)
        row = {"domain": "squares", "part": "clean", "condition": "clean", "measure": HITS.name, "value": hits}
        self.keep_evaluation([row])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr)


class Brightness(Task):
    headline, measures = HITS.name, (HITS.name,)

    def data(self, arm, run):
        squares = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        right = squares[..., 4:].mean((1, 2, 3)) > squares[..., :4].mean((1, 2, 3))
        samples = TensorDataset(squares, right.long())
        return LightningDataModule.from_datasets(samples, samples, batch_size=40)

    def module(self, arm, run):
        return Brighter(**arm.columns)

    def pace(self, arm, run):
        return Pace(run.flags.max_steps or 6, epoch_steps=1)

    def examples(self, module, data):
        squares, right = data.val_dataloader().dataset[:2]
        said = module.eval().net(squares).argmax(1)
        pictures = (40 * squares[:, 0, :, :, None] + 128).clamp(0, 255).byte().expand(-1, -1, -1, 3).numpy()
        return [Example("squares", i, pictures[i], HALVES[right[i]], HALVES[said[i]]) for i in range(2)]
