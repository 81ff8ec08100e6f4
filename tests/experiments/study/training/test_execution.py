"""--accumulate, --clip, --channels-last, --compile and --deterministic: what they do to a training, and what not."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from experiments import cls_batch_size, cls_imagenet, cls_office_home, seg_gta2city
from experiments.study.endings import UsageError
from experiments.study.flags import parse
from experiments.study.training.execution import compile_whole, lay_channels_last, refusals
from experiments.study.wandb_runs.offline_history import read_offline
from lightning_modules.checkpoints import load_network
from lightning_modules.classification.module import ClassificationModule
from tests.experiments.study import toy_pictures, toy_study
from tests.experiments.study.toy_task import Brighter, Brightness

QUICK = "--gpus 0 --workers 0 --wandb disabled"
SHAPES = f"{QUICK} --recipe smoke --data shapes/photo --width 0.25 --images 64 --batch-size 16 --max-steps 4"
STREETS = f"{QUICK} --recipe smoke --source streets-game --target streets-fog --scenes 2 --max-steps 2"


def study(script, line: str, out: Path) -> pd.DataFrame:
    script.run(parse(script.Flags, "", [*line.split(), "--out", str(out)]))
    return pd.read_csv(out / "results.csv")


def weights(out: Path) -> dict[str, torch.Tensor]:
    (file,) = out.glob("*-seed0/checkpoints/model.ckpt")
    return load_network(file).net.state_dict()


def losses(out: Path) -> torch.Tensor:
    (file,) = out.glob("*-seed0/metrics.csv")
    return torch.tensor(pd.read_csv(file)["train/loss"].dropna().to_numpy())


@pytest.fixture
def compiled_fast(monkeypatch):
    """Compilation without inductor, which takes a minute; returns what was compiled."""
    torch._dynamo.reset()
    compiled, whole = [], torch.compile

    def compile(function, *arguments, **named):
        compiled.append(function)
        return whole(function, *arguments, backend="aot_eager", **named)

    monkeypatch.setattr(torch, "compile", compile)
    return compiled


def test_two_batches_of_eight_are_one_of_sixteen(tmp_path):
    """Under a norm without batch statistics."""
    whole = study(cls_imagenet, f"{SHAPES} --norm gn", tmp_path / "whole")
    parts = study(cls_imagenet, f"{SHAPES} --norm gn --accumulate 2", tmp_path / "parts")
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for key in one:
        torch.testing.assert_close(other[key], one[key], atol=1e-5, rtol=1e-4)
    assert whole["value"].to_numpy() == pytest.approx(parts["value"].to_numpy(), abs=1e-4)


@pytest.mark.parametrize("norm", [0.01, 1000.0])
def test_gradients_are_clipped_as_by_hand(norm, tmp_path):
    study(toy_study, f"{QUICK} --norm bn --max-steps 1 --clip {norm}", tmp_path)
    pl.seed_everything(0, verbose=False)
    (squares, right), module = Brightness().data(None, None).train_dataloader().dataset[:], Brighter("bn", 0.1)
    nn.functional.cross_entropy(module.net(squares), right).backward()
    before = nn.utils.clip_grad_norm_(module.parameters(), norm)
    assert (before > norm) == (norm < 1)
    torch.optim.SGD(module.parameters(), 0.1).step()
    found = Brighter.load_from_checkpoint(next(tmp_path.glob("*/checkpoints/model.ckpt")))
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), parameter, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("script", "line", "said"),
    [
        (toy_pictures, "--clip 1", "--clip: Negative steps its optimisers itself"),
        (toy_pictures, "--clip 1 --accumulate 2", "--clip and --accumulate: Negative steps its optimisers itself"),
        (toy_study, "--accumulate 2", "--accumulate 2: each step of this study is one batch"),
        (cls_batch_size, "--accumulate 2", "--accumulate: in this study --settings sets it"),
        (cls_imagenet, f"{SHAPES} --accumulate 3", "--batch-size 16 cannot be shared by 1 process of 3 batches"),
        (seg_gta2city, f"{STREETS} --accumulate 3", "--batch-size 2 cannot be shared by 1 process of 3 batches"),
        (seg_gta2city, f"{STREETS} --norm bn --accumulate 2", "--batch-size 2 leaves each batch one image"),
    ],
)
def test_what_cannot_be_accumulated_or_clipped_is_refused(script, line, said, tmp_path):
    with pytest.raises((UsageError, SystemExit)) as stopped:
        script.run(parse(script.Flags, "", [*f"{QUICK} {line}".split(), "--out", str(tmp_path / "run")]))
    assert said in str(stopped.value.__context__ or stopped.value)
    assert not list(tmp_path.glob("run/*-seed*"))


def test_adversarial_training_is_clipped_and_accumulated(tmp_path):
    line = SHAPES.replace("/photo", "") + " --setting transfer --adapt dann --source photo --target sketch --norm bn"
    study(cls_office_home, f"{line} --accumulate 2 --clip 0.1", tmp_path)
    assert torch.isfinite(losses(tmp_path)).all()


def test_weights_and_activations_are_channels_last(tmp_path, monkeypatch):
    seen = []

    def look(self, *_):
        if not seen:
            images = torch.randn(2, 3, 32, 32)
            seen.extend(p for p in self.net.parameters() if p.dim() == 4)
            convolutions = [layer for layer in self.net.modules() if isinstance(layer, nn.Conv2d)]
            handles = [c.register_forward_hook(lambda *found: seen.append(found[2])) for c in convolutions]
            self.net(images)
            [handle.remove() for handle in handles]

    study(cls_imagenet, f"{SHAPES} --norm ibn-a", tmp_path / "plain")
    monkeypatch.setattr(ClassificationModule, "on_train_batch_end", look)
    study(cls_imagenet, f"{SHAPES} --norm ibn-a --channels-last", tmp_path / "last")
    assert len(seen) > 10 and all(v.is_contiguous(memory_format=torch.channels_last) for v in seen)
    assert any(not v.is_contiguous() for v in seen)
    torch.testing.assert_close(losses(tmp_path / "last"), losses(tmp_path / "plain"), atol=0.05, rtol=0.02)


def test_videos_weights_are_channels_last_too():
    net = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Conv2d(2, 2, 3), nn.Linear(2, 2))
    lay_channels_last(net)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last)


COMPILED = {
    "ibn-b": (cls_imagenet, f"{SHAPES} --norm ibn-b"),
    "sn, averaged": (cls_imagenet, f"{SHAPES} --norm sn --ema-decay 0.5 --ema-statistics reestimated"),
    "adversarial": (
        cls_office_home,
        SHAPES.replace("/photo", "") + " --setting transfer --adapt dann --source photo --target sketch --norm bin",
    ),
    "segmentation": (seg_gta2city, f"{STREETS} --norm ibn-b"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "segmentation" else ()) for name in COMPILED]
)
def test_a_compiled_training_is_close_to_a_plain_one(name, compiled_fast, tmp_path):
    script, line = COMPILED[name]
    plain = study(script, line, tmp_path / "plain")
    assert not compiled_fast
    found = study(script, f"{line} --compile", tmp_path / "compiled")
    assert compiled_fast and torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert list(found["measure"]) == list(plain["measure"])
    assert weights(tmp_path / "compiled").keys() == weights(tmp_path / "plain").keys()
    torch.testing.assert_close(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), atol=0.05, rtol=0.02)
    for table in ("gates.parquet", "divergence.csv"):
        assert (tmp_path / "compiled" / table).exists() == (tmp_path / "plain" / table).exists()


def test_halves_are_measured_in_a_compiled_network(compiled_fast, tmp_path):
    study(cls_imagenet, f"{SHAPES} --norm ibn-a --compile --wandb offline", tmp_path)
    logged = read_offline(tmp_path / "ibn-a-seed0", wait=10).rows.values()
    assert any("ibn/in_mean" in row for row in logged)


def test_every_arm_is_compiled_as_one_graph(compiled_fast, tmp_path):
    """torch compiles a function no more than eight times in a process, unless it is told otherwise."""
    torch._dynamo.utils.counters.clear()
    study(cls_imagenet, f"{SHAPES} --norm bn gn in ibn-a ibn-b --compile", tmp_path)
    counts = torch._dynamo.utils.counters
    assert len(compiled_fast) == 5 and counts["frames"]["ok"] == counts["frames"]["total"]
    assert counts["stats"]["unique_graphs"] == counts["frames"]["ok"] == 10  # in training and in evaluation


def test_compile_may_change_when_a_run_is_resumed_and_the_others_not(compiled_fast, tmp_path):
    study(toy_study, f"{QUICK} --norm bn", tmp_path)
    study(toy_study, f"{QUICK} --norm bn sn --compile --resume", tmp_path)
    assert compiled_fast
    with pytest.raises(UsageError, match="channels_last was 'no'"):
        study(toy_study, f"{QUICK} --norm bn --channels-last --resume", tmp_path)


@pytest.mark.slow
def test_inductor_compiles_it(tmp_path):
    """The compiler that --compile uses; it writes and compiles C++ or Triton."""
    torch._dynamo.reset()
    study(cls_imagenet, f"{SHAPES} --norm ibn-b", tmp_path / "plain")
    study(cls_imagenet, f"{SHAPES} --norm ibn-b --compile", tmp_path / "compiled")
    torch.testing.assert_close(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), atol=0.05, rtol=0.02)


def test_deterministic_operations_are_asked_for_and_only_then(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Brighter, "on_train_batch_end", lambda *_: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    study(toy_study, f"{QUICK} --norm bn --max-steps 1 --deterministic", tmp_path / "one")
    study(toy_study, f"{QUICK} --norm bn --max-steps 1", tmp_path / "other")
    assert seen == [True, False]


def test_an_operation_without_a_deterministic_form_is_named():
    said = "upsample_bicubic2d_backward_out_cuda does not have a deterministic implementation, but you set ..."
    with (
        pytest.raises(UsageError, match=r"--deterministic: torch's operation upsample_bicubic2d\w+ has no"),
        refusals(),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="out of memory"), refusals():
        raise RuntimeError("out of memory")


def test_a_network_that_is_compiled_too_often_is_refused_in_a_sentence(compiled_fast):
    class Variable(nn.Module):
        def forward(self, x, number):
            return x * torch.tensor(float(str(number)))

    part = Variable()
    compile_whole([part])
    with pytest.raises(UsageError, match=r"torch cannot compile this network here .*recompile"), refusals():
        for number in range(40):
            part(torch.ones(2), f"{number}")


def test_a_network_that_cannot_be_compiled_is_refused_in_a_sentence():
    torch._dynamo.reset()

    def broken(graph, inputs):
        raise ValueError("no compiler here")

    with pytest.raises(UsageError, match=r"torch cannot compile .*no compiler"), refusals():
        functools.partial(torch.compile, backend=broken)(lambda x: x + 1)(torch.ones(2))


@pytest.mark.slow
def test_two_processes_share_statistics_in_a_compiled_training(tmp_path):
    """Under inductor, with accumulated and clipped gradients and averaged weights, too."""
    root = Path(__file__).parents[4]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line = f"{SHAPES} --norm sn ibn-b --sync-norm --ema-decay 0.5 --accumulate 2 --clip 1 --channels-last"
    for name, flags in (("plain", []), ("compiled", ["--compile"])):
        script = [str(root / "experiments" / "cls_imagenet.py"), *line.split(), *flags, "--out", str(tmp_path / name)]
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*torchrun, *script], capture_output=True, text=True, env=environment, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
    plain, found = (pd.read_csv(tmp_path / name / "results.csv") for name in ("plain", "compiled"))
    assert found["value"].to_numpy() == pytest.approx(plain["value"].to_numpy(), abs=1e-4)
