"""--keep-best and --keep-every."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from experiments import cls_imagenet
from experiments.study.flags import parse
from experiments.study.resume.kept import selection_score
from lightning_modules.checkpoints import load_network
from lightning_modules.classification.module import ClassificationModule

LINE = (
    "--gpus 0 --workers 0 --wandb disabled --recipe smoke --data shapes/photo --width 0.25 --images 40 --max-steps 7 "
    "--norm bin --keep-best --keep-every 3 --save-every 1"
)


class Stop(BaseException):
    pass


def study(line: str, out: Path, tops: list[float], stop_at: int = 100) -> list[dict[str, torch.Tensor]]:
    """Run a study whose evaluations find these accuracies, step by step; returns the weights after each batch."""
    seen: list[dict[str, torch.Tensor]] = []
    ends, evaluates = ClassificationModule.on_train_batch_end, ClassificationModule.results

    def results(self):
        rows = evaluates(self)
        return [row | ({"value": tops[self.evaluated_at]} if row["measure"] == "top1" else {}) for row in rows]

    def end(self, *arguments):
        if self.steps >= stop_at:
            raise Stop
        seen.append({key: value.clone() for key, value in self.net.state_dict().items()})
        return ends(self, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ClassificationModule, "results", results)
        patched.setattr(ClassificationModule, "on_train_batch_end", end)
        with suppress(Stop):
            cls_imagenet.run(parse(cls_imagenet.Flags, "", [*line.split(), "--out", str(out)]))
    return seen


def weights(out: Path, name: str) -> dict[str, torch.Tensor]:
    return load_network(out / "bin-seed0" / "checkpoints" / name).net.state_dict()


@pytest.mark.parametrize(("tops", "best"), [([0.5] * 5 + [0.9, 0.8, 0.7], 5), ([0.5] * 5 + [0.6, 0.8, 0.7], 7)])
def test_the_best_and_every_third_network_are_kept(tops, best, tmp_path):
    """Evaluated after five steps and at the end."""
    after = study(LINE, tmp_path / "run", tops)
    files = {file.name for file in (tmp_path / "run" / "bin-seed0" / "checkpoints").iterdir()}
    assert files == {"model.ckpt", "best.ckpt", "step-3.ckpt", "step-6.ckpt"}
    for name, step in (("best.ckpt", best), ("step-3.ckpt", 3), ("step-6.ckpt", 6), ("model.ckpt", 7)):
        found = weights(tmp_path / "run", name)
        assert all(torch.equal(found[key], value) for key, value in after[step - 1].items()), name


def test_what_is_kept_of_averaged_weights_is_the_average(tmp_path):
    line = LINE.replace("--keep-every 3", "--keep-every 7") + " --ema-decay 0.5"
    after = study(line, tmp_path / "run", [0.5] * 8)
    average, last = weights(tmp_path / "run", "step-7.ckpt"), weights(tmp_path / "run", "model.ckpt")
    assert all(torch.equal(average[key], last[key]) for key in last)
    assert not all(torch.equal(average[key], value) for key, value in after[6].items())


def test_an_interruption_does_not_change_which_is_the_best(tmp_path):
    tops = [0.5] * 5 + [0.9, 0.8, 0.7]
    study(LINE, tmp_path / "whole", tops)
    study(LINE, tmp_path / "run", tops, stop_at=6)
    study(f"{LINE} --resume", tmp_path / "run", tops)
    for name in ("best.ckpt", "step-3.ckpt", "step-6.ckpt"):
        one, other = weights(tmp_path / "whole", name), weights(tmp_path / "run", name)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_network_is_chosen_on_the_source_where_there_is_one():
    rows = [
        {"measure": "miou", "value": 0.5, "role": "source"},
        {"measure": "miou", "value": 0.1, "role": "target"},
        {"measure": "chance", "value": 0.9, "role": "source"},
    ]
    assert selection_score(rows, "miou") == 0.5
    assert selection_score([{"measure": "top1", "value": value} for value in (0.2, 0.6)], "top1") == 0.4
    assert selection_score([], "top1") is None
