"""A training that is stopped anywhere and resumed ends like one that was not, to the last bit."""

import filecmp
from pathlib import Path

import pytest
import torch

from experiments import cls_batch_size, cls_imagenet, cls_office_home, seg_gta2city
from experiments.study.flags import parse
from lightning_modules.classification.module import ClassificationModule
from lightning_modules.segmentation.module import SegmentationModule
from lightning_modules.study_module import StudyModule
from tests.experiments.study import toy_study

QUICK = "--gpus 0 --workers 0 --wandb disabled --save-every 1"
SHAPES = f"{QUICK} --recipe smoke --data shapes/photo --width 0.25 --images 40 --max-steps 7"
STUDIES = {  # epochs of five steps and one of two; of four steps and one
    "average": (cls_imagenet, ClassificationModule, f"{SHAPES} --norm bin --ema-decay 0.5"),
    "reestimated": (
        cls_imagenet,
        ClassificationModule,
        f"{SHAPES} --norm sn --ema-decay 0.5 --ema-statistics reestimated --mixup 0.2",
    ),
    "accumulated": (cls_batch_size, ClassificationModule, f"{SHAPES} --norm sn --settings 2x4"),
    "flags": (
        cls_imagenet,
        ClassificationModule,
        f"{SHAPES} --norm ibn-b --ema-decay 0.5 --accumulate 2 --clip 0.5 --channels-last --deterministic",
    ),
    "two loaders": (
        cls_office_home,
        ClassificationModule,
        f"{SHAPES.replace('/photo', '')} --norm bin --setting transfer --adapt dann --source photo --target sketch",
    ),
    "segmentation": (
        seg_gta2city,
        SegmentationModule,
        f"{QUICK} --recipe smoke --source streets-game --target streets-fog --max-steps 5 --norm bin --scenes 2",
    ),
}


class Stop(BaseException):
    """As sudden as a kill, for all that Lightning knows."""


def study(
    script, line: str, out: Path, stop_in: type[StudyModule] | None = None, hook: str = "", step: int = 0
) -> bool:
    """Run a script; it is stopped in a hook of the module once so many steps are done. Returns whether it was."""
    with pytest.MonkeyPatch.context() as patched:
        if stop_in is not None:
            whole = getattr(stop_in, hook)

            def stopping(self, *arguments, **named):
                if self.steps >= step:
                    raise Stop
                return whole(self, *arguments, **named)

            patched.setattr(stop_in, hook, stopping)
        try:
            script.run(parse(script.Flags, "", [*line.split(), "--out", str(out)]))
        except Stop:
            return True
    return False


def differences(one: Path, other: Path) -> list[str]:
    """What is not equal in two runs, to the last bit."""
    found = []
    for file in sorted(one.rglob("model.ckpt")):
        kept, again = (torch.load(run / file.relative_to(one), weights_only=False) for run in (one, other))
        weights, others = kept["state_dict"], again["state_dict"]
        found += [key for key in weights if not torch.equal(weights[key], others[key])]
        found += [key for key in kept["study"] if kept["study"][key] != again["study"][key]]
    for name in ("gates.parquet", "metrics.csv", "results.csv", "table.json"):
        for file in [file for file in (one / name, *one.glob(f"*-seed*/{name}")) if file.exists()]:
            same = other / file.relative_to(one)
            if not same.exists() or not filecmp.cmp(file, same, shallow=False):
                found.append(str(file.relative_to(one)))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The runs that were not stopped, by the name of their study."""
    runs: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in runs:
            script, _, line = STUDIES[name]
            runs[name] = tmp_path_factory.mktemp("whole") / "run"
            study(script, line, runs[name])
        return runs[name]

    return run


MOMENTS = [
    ("on_train_batch_end", 1),
    ("on_train_batch_end", 3),
    ("on_train_batch_end", 5),  # behind the last batch of an epoch, or of the training
    ("on_train_batch_end", 6),
    ("validation_step", 1),
    ("validation_step", 5),
    ("on_train_end", 1),
]


@pytest.mark.parametrize(("hook", "step"), MOMENTS)
@pytest.mark.parametrize("name", ["average", *(pytest.param(name, marks=pytest.mark.slow) for name in [*STUDIES][1:])])
def test_a_resumed_training_is_the_whole_one(name, hook, step, whole, tmp_path):
    script, module, line = STUDIES[name]
    if not study(script, line, tmp_path / "run", module, hook, step):
        pytest.skip("the training is shorter")
    study(script, f"{line} --resume", tmp_path / "run")
    assert differences(whole(name), tmp_path / "run") == []


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_task_with_loaders_of_its_own_is_replayed(step, tmp_path):
    """Lightning's plain loader, shuffled by torch: batches of an epoch that are done are read and dropped."""
    line = f"{QUICK} --norm sn bn --max-steps 4"
    study(toy_study, line, tmp_path / "whole")
    module = toy_study_module()
    assert study(toy_study, line, tmp_path / "run", module, "on_train_batch_end", step)
    study(toy_study, f"{line} --resume", tmp_path / "run")
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def toy_study_module() -> type[StudyModule]:
    from tests.experiments.study.toy_task import Brighter

    return Brighter
