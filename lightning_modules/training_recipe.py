"""What the recipes of all tasks say in the same words: how weights are optimised."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The optimiser, its learning rate and how that changes, for `lightning_modules.optimization` to build.

    A task's recipe inherits from this and adds, as fields or as properties, `max_steps` (optimiser steps in all) and
    `warmup_steps`. Names, such as "sgd" and "poly", are looked up in the tables of `lightning_modules.optimization`.
    """

    batch_size: int  # samples a step, over all processes
    lr: float  # the highest rate; where `lr_batch` is set, at that batch size, and in proportion at any other
    lr_batch: int | None = None
    optimizer: str = "sgd"  # a name in `OPTIMIZERS`
    momentum: float = 0.9  # SGD's, and Adam's beta 1
    beta2: float = 0.999  # Adam's
    nesterov: bool = False
    backbone_lr: float = 1.0  # the rate of the parameters that the module calls its backbone, times the others'
    weight_decay: float
    decay_norms: bool = True  # whether norms' weights and biases, and biases in general, decay as well
    decay_biases: bool | None = None  # of convolutions and linear layers; None: as `decay_norms` says
    decay_gates: bool = False  # whether gates decay as well that are not fast (Switchable Normalization's)

    schedule: str  # a name in `SCHEDULES`
    milestones: tuple[float, ...] = ()  # of "step", at which the rate is divided by ten; see `milestone_steps`
    lr_gamma: float = 0.0  # of "inverse"
    poly_power: float = 0.9  # of "poly"
    warmup: str = "to-schedule"  # where the warm-up leads to: a name in `WARMUPS`

    @property
    def base_lr(self) -> float:
        """The highest rate, by the linear scaling rule (Goyal et al. 2017) where `lr_batch` is set."""
        return self.lr if self.lr_batch is None else self.lr * self.batch_size / self.lr_batch

    @property
    def milestone_steps(self) -> tuple[int, ...]:
        """The milestones in optimiser steps. A recipe that counts in epochs says here how long they are."""
        return tuple(round(milestone) for milestone in self.milestones)
