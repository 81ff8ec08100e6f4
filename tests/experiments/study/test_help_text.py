"""--help and --recipes: own flags first, values of the recipe, every recipe, and nothing that says nothing."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from experiments import cls_cifar, cls_office_home, cls_resnet_rs, cls_rs_scaling, seg_gta2city
from experiments.study.flags import parse
from experiments.study.help_text import in_words, recipes_table, shown, with_value
from lightning_modules.classification.recipes import CLASSIFICATION_RECIPES
from lightning_modules.segmentation.recipes import SEGMENTATION_RECIPES
from tests.experiments.study import toy_study

ROOT = Path(__file__).parents[3]


def printed(script, line: str, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(script.Flags, script.__doc__, line.split())
    assert not ended.value.code
    return capsys.readouterr().out


def flags_in(text: str) -> list[str]:
    return re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)


def test_own_flags_come_first_then_the_tasks_then_those_of_every_study(capsys):
    text = printed(cls_office_home, "--help", capsys)
    groups = re.findall(r"^(flags .+|options):$", text, re.MULTILINE)
    assert groups == [
        "flags of this study", "flags that every classification study has", "flags that every study has", "options",
    ]  # fmt: skip
    assert flags_in(text)[:5] == ["--norm", "--setting", "--adapt", "--source", "--target"]
    assert len(set(flags_in(text))) == len(fields(cls_office_home.Flags)) + 2  # and --config and --recipes


def test_examples_stand_on_their_own_lines(capsys):
    text = printed(cls_office_home, "--help", capsys)
    assert "\n    python experiments/cls_office_home.py --norm bn bin --seeds 3\n" in text
    assert text.startswith("usage: ") and "[flags]" in text.splitlines()[0]


@pytest.mark.parametrize("script", [cls_cifar, cls_rs_scaling, seg_gta2city, toy_study])
def test_no_default_says_nothing(script, capsys):
    text = " ".join(printed(script, "--help", capsys).split())
    assert not re.search(r"default: (None|\[|False|True|\))", text)


def test_the_recipes_values_are_said(capsys):
    text = " ".join(printed(cls_cifar, "--help", capsys).split())
    assert "batch size. (default: the recipe's, 0.3 in laptop)" in text
    assert "Images per step, over all processes; by default the recipe's, 64 in laptop." in text
    assert "by default the recipe's, cifar_resnet8 in laptop." in text  # that study has a list of backbones
    text = " ".join(printed(cls_office_home, "--recipe tll-dann --help", capsys).split())
    assert "0.001 in tll-dann" in text and "by default the recipe's, best in tll-dann." in text.replace("By", "by")
    text = " ".join(printed(seg_gta2city, "--help", capsys).split())
    assert "768 768 in robustnet" in text and "by default the recipe's, 40000 in robustnet." in text
    text = " ".join(printed(cls_resnet_rs, "--help", capsys).split())
    assert "0.98 in this study's laptop" in text


@pytest.mark.parametrize(
    ("script", "recipes", "without"),
    [
        (cls_office_home, CLASSIFICATION_RECIPES, ()),
        (cls_cifar, CLASSIFICATION_RECIPES, ("tll-dann", "domainbed-erm")),
        (cls_resnet_rs, CLASSIFICATION_RECIPES, ("bin-cifar",)),
        (seg_gta2city, SEGMENTATION_RECIPES, ()),
    ],
)
def test_every_recipe_is_listed_with_every_value(script, recipes, without, capsys):
    tables = printed(script, "--recipes", capsys).split("\n\n")[1:]
    found: dict[str, dict[str, str]] = {}
    for table in tables:
        head, *rows = table.splitlines()
        starts = [match.start() for match in re.finditer(r"\S+", head)]
        for name, start, end in zip(head.split(), starts, [*starts[1:], None], strict=True):
            found[name] = {row.split()[0]: row[start:end].strip() for row in rows}
    for name in without:
        assert name not in found
    for name, values in found.items():
        assert values == {field.name: shown(getattr(recipes[name], field.name)) for field in fields(recipes[name])}
    assert len(found) > 3 and (without or found.keys() == recipes.keys())


def test_one_recipe_alone_is_listed(capsys):
    text = printed(seg_gta2city, "--recipe smoke --recipes", capsys)
    assert re.search(r"^ +smoke$", text, re.MULTILINE) and "robustnet-r101" not in text


@pytest.mark.parametrize("line", ["--help", "--recipes"])
def test_nothing_waits_for_torch(line):
    code = (
        f"import sys\nfrom experiments import cls_imagenet\nsys.argv = ['cls_imagenet.py', '{line}']\n"
        "try: cls_imagenet.main()\nexcept SystemExit: print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.endswith("set()\n")


def test_values_and_types_are_written_plainly():
    assert [*map(shown, (None, True, 0.10, 5e-5, (2, 10), (), {"a": 1}, "x"))] == [
        "none", "yes", "0.1", "5e-05", "2 10", "none", "a=1", "x",
    ]  # fmt: skip
    assert [*map(in_words, (int | None, list[str], tuple[int, int] | None, float))] == [
        "int", "str ...", "int int", "float",
    ]  # fmt: skip
    assert with_value("A share.", 0.5, "r") == "A share. (default: the recipe's, 0.5 in r)"
    assert with_value("A; by default\nthe recipe's.", 1, "r") == "A; by default the recipe's, 1 in r."
    assert with_value("A; by default the recipe's steps.", 1, "r").endswith("(default: the recipe's, 1 in r)")
    assert recipes_table({}) == ""
