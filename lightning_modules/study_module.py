"""The base class of every task's Lightning module: the study's clock, evaluations, and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytorch_lightning as pl
from torch import Tensor, nn

from lightning_modules.clock import Clock
from lightning_modules.extension import fault_of_longer, first_other_rate
from lightning_modules.measures import measure_of


class StudyModule(pl.LightningModule):
    """A network under `net`, its training, and the results of its last evaluation.

    A task's module sets `measures` and `headline`, and calls `keep_evaluation` at the end of each evaluation. It passes
    everything that a checkpoint needs for rebuilding it to `save_hyperparameters`.

    **The clock.** `steps` counts the steps of the study. Epochs, logs, gates, schedules, averages of weights and the
    end of a training depend on it. A batch counts as one step if at least one optimiser has stepped in it, so with
    accumulated gradients several batches are one step. A task whose phases alternate between batches sets
    `batches_per_step`; a task with other rules overrides `counts_as_step`. (Lightning's `global_step` counts every
    `optimizer.step()` instead.) Schedules of `configure_optimizers` with `interval="step"` advance once for each step
    of the clock, also under manual optimisation.

    Args:
        select_on: domains whose mean headline selects the evaluation, and its weights, that are kept at the end
            (`take_selected`); by default the last evaluation is kept.

    Attributes:
        steps: number of completed steps.
        evaluation: the last argument of `keep_evaluation`: lists, dicts and numbers.
        evaluated_at: `steps` at the last evaluation; None before the first.
        selected: the best evaluation so far; None without `select_on`.
        images: number of images of each domain that the network is evaluated on.
    """

    task: str = ""
    """The name of the task; the same for all modules of a task."""

    measures: tuple[str, ...] = ()
    """Names of the measures in `results` (`lightning_modules.measures`)."""

    headline: str = ""
    """The main measure, by which networks are compared; logged as DOMAIN/HEADLINE."""

    batches_per_step: int = 1
    """Batches in one step of the clock, in addition to Lightning's accumulation of gradients."""

    def __init__(self, select_on: Sequence[str] = ()):
        super().__init__()
        self.steps = 0
        self.images: dict[str, int] = {}
        self.evaluation: list = []
        self.evaluated_at: int | None = None
        self.select_on, self.selected = tuple(select_on), None
        self._candidate: dict[str, Tensor] = {}

    def counts_as_step(self, batch_index: int) -> bool:
        """Whether this batch, in which an optimiser has stepped, completes a step of the clock.

        Args:
            batch_index: number of the batch in its epoch, from 0.
        """
        return (batch_index + 1) % self.batches_per_step == 0

    def compiled_parts(self) -> list[nn.Module]:
        """The modules that --compile compiles, each by itself: those that the module calls in its steps."""
        return [self.net]

    def results(self) -> list[dict]:
        """The evaluation in long form, a row for each value: `domain`, `part`, `condition`, `measure`, `value`.

        By default it is the argument of `keep_evaluation`.
        """
        return self.evaluation

    def fault_of_longer(self, before: Mapping) -> str | None:
        """Why a shorter training with the hyper-parameters `before` cannot go on as this one, in words; None if it can.

        A task whose training depends on its length in other ways than by the recipe's learning rate overrides this.
        """
        return fault_of_longer(before, self.hparams, getattr(self, "recipe", None))

    @property
    def can_be_longer(self) -> bool:
        """Whether a training of twice the length would have taken the same steps so far."""
        recipe = getattr(self, "recipe", None)
        return recipe is None or first_other_rate(recipe, recipe.longer()) is None

    def keep_evaluation(self, evaluation: list) -> None:
        """Set the evaluation that `results` returns; with `select_on`, also select it if it is the best so far."""
        self.evaluation, self.evaluated_at = evaluation, self.steps
        if self.select_on and not self.trainer.sanity_checking:
            self._select()

    def take_selected(self) -> None:
        """After the training, restore the selected evaluation and its weights."""
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
        if self.select_on:  # copied now, because averaged weights are removed again before the epoch ends
            self._candidate = {key: value.detach().cpu().clone() for key, value in self.net.state_dict().items()}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint.setdefault("hyper_parameters", {})["module"] = type(self).__name__  # `load_network` needs it
        # so that a finished training is not evaluated again, and a resumed one keeps its selected evaluation
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
        if origin is not None:  # where the training of these weights had started
            self.hparams["weights_from"] = origin

    def lr_scheduler_step(self, scheduler, metric) -> None:
        by_steps = [config.scheduler for config in self.trainer.lr_scheduler_configs if config.interval == "step"]
        if scheduler not in by_steps or metric is not None:  # the clock advances the others
            super().lr_scheduler_step(scheduler, metric)


def steps_of(trainer: pl.Trainer, module: pl.LightningModule) -> int:
    """The completed steps of a training, by the study's clock or, for other modules, by Lightning's `global_step`."""
    return module.steps if isinstance(module, StudyModule) else trainer.global_step
