"""What the studies of ResNet-RS refuse, each in one sentence, and that their help is fast."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.study.endings import one_sentence
from experiments.study.flags import parse

ROOT = Path(__file__).parents[3]
STUDIES = ("cls_resnet_rs", "cls_rs_weight_decay", "cls_rs_scaling", "cls_rs_efficientnet")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("cls_resnet_rs --max-steps 9", "--max-steps does not go with this study: longer training is one of the"),
        ("cls_resnet_rs --depths 26", "unrecognized arguments: --depths 26"),
        ("cls_resnet_rs --backbone resnet50", "--backbone resnet50: this study needs a ResNet-RS"),
        ("cls_rs_weight_decay --weight-decay 1", "--weight-decay does not go with this study: it compares several"),
        ("cls_rs_weight_decay --latency-batch 4", "unrecognized arguments: --latency-batch 4"),
        ("cls_rs_scaling --backbone resnet50", "--backbone does not go with this study: pass --depths."),
        ("cls_rs_scaling --lr 1", "--lr does not go with this study: pass --lrs."),
        ("cls_rs_scaling --minival 0.9", "--minival 0.9: it must be 0.5 or less"),
        ("cls_rs_scaling --widths 0", "--widths 0: it must be 0.05 or more."),
        ("cls_rs_scaling --depths 27 --images 800", "ResNet-RS has depths 26, 50"),
        ("cls_rs_efficientnet --networks b9", "--networks b9: choose from b0, b1"),
        ("cls_rs_efficientnet --width 2", "--width does not go with this study: EfficientNets keep their own width."),
        *(
            (f"{study} {line}", sentence)
            for study in STUDIES
            for line, sentence in (
                ("--norm bn sn", "--norm bn sn: all networks of this study have one norm; pass one."),
                ("--recipe ibn-step", "--recipe ibn-step: this study takes laptop, or a ResNet-RS"),
                ("--weights imagenet", "--weights: this study compares whole trainings"),
            )
        ),
    ],
)
def test_what_contradicts_itself_ends_in_one_sentence(line, sentence, capsys, tmp_path):
    study, *arguments = line.split()
    module = importlib.import_module(f"experiments.{study}")
    with pytest.raises(SystemExit) as stopped, one_sentence():
        module.run(parse(module.Flags, "", [*arguments, "--out", str(tmp_path / "run")]))
    error = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and error.startswith("error: ") and "\n" not in error and sentence in error


@pytest.mark.parametrize("study", STUDIES)
def test_help_does_not_wait_for_torch(study):
    script = str(ROOT / "experiments" / f"{study}.py")
    code = f"import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_path({script!r}, run_name='__main__')\n"
    code += "except SystemExit: print({'torch', 'pandas', 'cv2', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip().endswith("set()") and "--norm" in done.stdout
