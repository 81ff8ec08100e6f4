"""What the Lightning module of every task has in common: the study's clock, and the evaluation that counts."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
from torch import Tensor

from lightning_modules.clock import Clock
from lightning_modules.measures import measure_of


class StudyModule(pl.LightningModule):
    """A network under `net`, how it is trained, and what its last evaluation found.

    A task's module names its `measures` and its `headline`, and calls `keep_evaluation` at the end of each evaluation.
    All that a checkpoint needs to build it again goes through `save_hyperparameters`.

    **The clock.** `steps` counts the steps of the study: epochs, logs, gates, schedules, averages of weights, and the
    end of a training go by it. It counts a batch in which one or more optimisers have stepped, however many they are;
    with accumulated gradients therefore one in so many batches. A task whose phases take turns batch by batch sets
    `batches_per_step`; one with other rules overrides `counts_as_step`. Lightning's `global_step` counts every single
    `optimizer.step()` instead. Schedules of `configure_optimizers` with `interval="step"` are stepped once each step of
    the clock, under manual optimisation as well.

    Args:
        select_on: domains whose mean headline chooses which evaluation counts, and with it the weights
            (`take_selected`); by default the last one does.

    Attributes:
        steps: completed steps. evaluation: what `keep_evaluation` was given last: plain lists, dicts and numbers.
        evaluated_at: `steps` at the last evaluation; None before the first. selected: the best evaluation so far.
        images: how many images each domain has that it is evaluated on.
    """

    task: str = ""
    """The name of its task, one for all kinds of modules that the task has."""

    measures: tuple[str, ...] = ()
    """Names of the measures in `results` (`lightning_modules.measures`)."""

    headline: str = ""
    """The measure of these that a network is first compared by; logged as DOMAIN/HEADLINE."""

    batches_per_step: int = 1
    """Batches that make one step of the clock, Lightning's own accumulation aside: an epoch has so many times more."""

    def __init__(self, select_on: Sequence[str] = ()):
        super().__init__()
        self.steps = 0
        self.images: dict[str, int] = {}
        self.evaluation: list = []
        self.evaluated_at: int | None = None
        self.select_on, self.selected = tuple(select_on), None
        self._candidate: dict[str, Tensor] = {}

    def counts_as_step(self, batch_index: int) -> bool:
        """Whether a step of the clock is complete with this batch, in which an optimiser has stepped.

        Args:
            batch_index: of the epoch's batches, from 0.
        """
        return (batch_index + 1) % self.batches_per_step == 0

    def results(self) -> list[dict]:
        """The evaluation that counts, a row a value: `domain`, `part`, `condition`, `measure`, `value`.

        By default it is what `keep_evaluation` was given.
        """
        return self.evaluation

    def keep_evaluation(self, evaluation: list) -> None:
        """Make this what `results` tells, at the present step; and the selected one where it is the best so far."""
        self.evaluation, self.evaluated_at = evaluation, self.steps
        if self.select_on and not self.trainer.sanity_checking:
            self._select()

    def take_selected(self) -> None:
        """Go back to the evaluation that counts and to its weights, once the training is over."""
        if self.selected is None:
            return
        self.net.load_state_dict(self.selected["weights"])
        self.evaluation = self.selected["evaluation"]
        if not self.global_rank:
            print(f"selected: the network of step {self.selected['step']} of {self.evaluated_at}")
        self.selected = None

    def _select(self) -> None:
        found = {row["domain"]: row["value"] for row in self.results() if row["measure"] == self.headline}
        score = sum(found[name] for name in self.select_on) / len(self.select_on)
        sign = -1 if measure_of(self.headline).smaller_is_better else 1
        if self.selected is None or sign * score > sign * self.selected["score"]:
            kept = {"score": score, "step": self.evaluated_at, "evaluation": self.evaluation}
            self.selected = kept | {"weights": self._candidate}
        self._candidate = {}

    # ------------------------------------------------------------------------------------------------ Lightning's hooks

    def setup(self, stage: str) -> None:
        evaluated = getattr(getattr(self.trainer, "datamodule", None), "evaluated", ())
        self.images = {domain.name: len(domain.samples) for domain in evaluated} or self.images

    def configure_callbacks(self) -> list[pl.Callback]:
        return [Clock()]

    def on_validation_epoch_start(self) -> None:
        if self.select_on:  # copied now: an average of weights is in place from here on, and not when the epoch ends
            self._candidate = {key: value.detach().cpu().clone() for key, value in self.net.state_dict().items()}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint.setdefault("hyper_parameters", {})["module"] = type(self).__name__  # by which it is found again
        # a training that had ended is not evaluated twice, and one that is resumed keeps what it had selected
        checkpoint["study"] = {
            "written_in": type(self).__module__,
            "steps": self.steps,
            "images": self.images,
            "evaluated_at": self.evaluated_at,
            "evaluation": self.evaluation,
            "selected": self.selected,
        }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        kept = checkpoint.get("study", {})
        self.steps = kept.get("steps", 0)
        self.evaluated_at, self.evaluation = kept.get("evaluated_at"), kept.get("evaluation", [])
        self.selected, self.images = kept.get("selected"), kept.get("images", {})
        origin = checkpoint.get("hyper_parameters", {}).get("weights_from")
        if origin is not None:  # the weights are the checkpoint's now, and its training began there
            self.hparams["weights_from"] = origin

    def lr_scheduler_step(self, scheduler, metric) -> None:
        by_steps = [config.scheduler for config in self.trainer.lr_scheduler_configs if config.interval == "step"]
        if scheduler not in by_steps or metric is not None:  # the clock steps the others
            super().lr_scheduler_step(scheduler, metric)


def steps_of(trainer: pl.Trainer, module: pl.LightningModule) -> int:
    """The steps that a training has taken: by the study's clock or, for a module without one, by Lightning's count."""
    return module.steps if isinstance(module, StudyModule) else trainer.global_step
