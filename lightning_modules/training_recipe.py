"""The part of a recipe that all tasks share: optimiser, learning rate and schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The optimiser, its learning rate and schedule; `lightning_modules.optimization` builds them.

    A task's recipe inherits from this class and adds, as fields or properties, `max_steps` (the number of steps) and
    `warmup_steps`. Names such as "sgd" and "poly" are keys of the tables in `lightning_modules.optimization`.
    """

    batch_size: int  # samples in one step, over all processes
    lr: float  # the highest learning rate; if `lr_batch` is set, for that batch size, and scaled linearly for others
    lr_batch: int | None = None
    optimizer: str = "sgd"  # a name in `OPTIMIZERS`
    momentum: float = 0.9  # SGD's, and Adam's beta 1
    beta2: float = 0.999  # Adam's
    nesterov: bool = False
    backbone_lr: float = 1.0  # factor of the learning rate for the parameters of the module's backbone
    weight_decay: float
    decay_norms: bool = True  # whether norms' weights and biases, and all other biases, decay
    decay_biases: bool | None = None  # whether biases of convolutions and linear layers decay; None: as `decay_norms`
    decay_gates: bool = False  # whether gates that are not fast (Switchable Normalization's) decay

    schedule: str  # a name in `SCHEDULES`
    milestones: tuple[float, ...] = ()  # for "step": where the rate is divided by ten; see `milestone_steps`
    lr_gamma: float = 0.0  # for "inverse"
    poly_power: float = 0.9  # for "poly"
    warmup: str = "to-schedule"  # a name in `WARMUPS`

    precision: str = "32-true"  # as Lightning names it; "auto" is what the machine computes fastest
    channels_last: str = "no"  # or "yes"; "auto" is what is faster on the machine

    @property
    def base_lr(self) -> float:
        """The highest learning rate, by the linear scaling rule (Goyal et al. 2017) if `lr_batch` is set."""
        return self.lr if self.lr_batch is None else self.lr * self.batch_size / self.lr_batch

    def longer(self) -> TrainingRecipe:
        """The recipe of a training of twice the length; recipes that count in epochs override this."""
        return replace(self, max_steps=2 * self.max_steps)

    @property
    def milestone_steps(self) -> tuple[int, ...]:
        """The milestones in steps. Recipes that count in epochs override this."""
        return tuple(round(milestone) for milestone in self.milestones)
