"""Which norm learns a negative? A whole task of two optimisers, pictures from pictures, in one file: script, module,
task and, as `--plugin`, what evaluate.py and predict.py need."""

from dataclasses import dataclass, field

import torch
from pytorch_lightning import LightningDataModule
from torch import nn
from torch.utils.data import TensorDataset

from experiments.study.flags import RunFlags, one_sentence, parse
from experiments.study.loop import run_study
from experiments.study.settings import resolved
from experiments.study.task import Arm, Pace, Task
from experiments.study.trained.task import TrainedTask
from lightning_modules.examples import Example
from lightning_modules.measures import Measure, register_measure
from lightning_modules.study_module import StudyModule
from normshift import convert

ERROR = register_measure(Measure("toy_error", "error", "grey levels", better="lower", scale=255, digits=2))
NEAR = register_measure(Measure("toy_near", "pixels nearly right"))


class Negative(StudyModule):
    task, headline, measures = "negative", ERROR.name, (ERROR.name, NEAR.name)
    automatic_optimization = False

    def __init__(self, norm: str):
        super().__init__()
        self.save_hyperparameters()
        self.net = convert(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1), nn.Sigmoid()), norm)
        self.critic = nn.Conv2d(6, 1, 1)

    def forward(self, pictures):
        return self.net(pictures)

    def training_step(self, batch, index):
        (pictures, truth), (own, critics) = batch, self.optimizers()
        made = self(pictures)
        real, drawn = (self.critic(torch.cat([pictures, x], 1)).mean() for x in (truth, made.detach()))
        self.stepped(critics, drawn - real, "train/critic_loss")
        loss = (made - truth).abs().mean() - 0.01 * self.critic(torch.cat([pictures, made], 1)).mean()
        self.stepped(own, loss, "train/loss")

    def stepped(self, optimizer, loss, name):
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log(name, loss.detach())

    def validation_step(self, batch, index):  # all pictures are one batch
        errors = (self(batch[0]) - batch[1]).abs()
        found = {ERROR.name: errors.mean().item(), NEAR.name: (errors < 0.1).float().mean().item()}
        self.log_dict({f"noise/{name}": value for name, value in found.items()})
        row = {"domain": "noise", "part": "clean", "condition": "clean"}
        self.keep_evaluation([row | {"measure": name, "value": value} for name, value in found.items()])

    def configure_optimizers(self):
        return [torch.optim.Adam(network.parameters(), 0.01) for network in (self.net, self.critic)]


def noise():
    pictures = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = TensorDataset(pictures, 1 - pictures)
    return LightningDataModule.from_datasets(samples, samples, batch_size=8)


def shown(pictures):
    return (255 * pictures).round().byte().movedim(-3, -1).numpy()


class Negatives(Task):
    headline, measures = Negative.headline, Negative.measures

    def data(self, arm, run):
        return noise()

    def module(self, arm, run):
        return Negative(arm.name)

    def pace(self, arm, run):
        return Pace.of(run.flags, max_steps=6, samples=8, batch_size=run.flags.batch_size or 8, epoch_steps=2)

    def examples(self, module, data):
        pictures, truth = data.val_dataloader().dataset[:2]
        with torch.no_grad():
            made = module.eval()(pictures)
        return [Example("noise", i, *map(shown, (pictures[i], truth[i], made[i]))) for i in range(2)]


class TrainedNegatives(TrainedTask):
    task = Negative.task

    def data(self, module, targets, flags):
        return noise()

    def answer(self, module, picture):
        return shown(module(torch.tensor(picture).movedim(-1, 0)[None].float() / 255)[0])


@dataclass
class Flags(RunFlags):
    """Flags of this study."""

    norm: list[str] = field(default_factory=lambda: ["sn", "bn"])
    """Norms to compare, of NORMS."""


def run(flags: Flags):
    arms = [Arm(name=norm, columns={"norm": norm}) for norm in flags.norm]
    return run_study(Negatives(), arms, resolved(flags, "toy_pictures"), "Which norm learns a negative?")


if __name__ == "__main__":
    with one_sentence():
        run(parse(Flags, __doc__))
