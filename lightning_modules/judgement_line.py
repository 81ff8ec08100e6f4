"""Progress that stays in a log, where a progress bar does not."""

import time

import pytorch_lightning as pl


class JudgementLine(pl.Callback):
    """Prints a line with the mIoU on every domain after each judgement."""

    def __init__(self, name: str):
        self.name, self.started = name, time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            scores = {k.removesuffix("/miou"): v for k, v in trainer.callback_metrics.items() if k.endswith("/miou")}
            judged = ", ".join(f"{domain} {100 * score:.1f}" for domain, score in scores.items())
            seconds = time.monotonic() - self.started
            print(
                f"{self.name}: step {trainer.global_step} of {trainer.max_steps}, mIoU {judged} ({seconds:.0f} s)",
                flush=True,
            )
