"""Classification whose results are joined by each network's latency."""

from __future__ import annotations

from datamodules.classification import ClassificationData
from experiments.latency import latency
from experiments.study.settings import RunSettings
from experiments.tasks.classification import Arm, ClassificationTask
from lightning_modules.classification import ClassificationModule


class TimedTask(ClassificationTask):
    """Classification by a study whose flags have `latency_batch` and `latency_repeats`."""

    def evaluate_further(
        self, module: ClassificationModule, data: ClassificationData, arm: Arm, run: RunSettings
    ) -> dict[str, list[dict]]:
        found = super().evaluate_further(module, data, arm, run)
        return found | {"results": [*found.get("results", []), self._timed(arm, run)]}

    def _timed(self, arm: Arm, run: RunSettings) -> dict:
        """A row with the latency of a network that is built anew: weights do not matter, and its mode stays its own."""
        network = self.module(arm, run).net.to("cuda" if run.accelerator == "gpu" else "cpu")
        batch, repeats = self.flags.latency_batch, self.flags.latency_repeats
        value = latency(network, arm.recipe.image_size, batch_size=batch, repeats=repeats)
        return {"part": "speed", "condition": f"batch {batch}", "measure": "latency", "value": value}
