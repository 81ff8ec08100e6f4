"""Exported networks compute what the network computes, also where this repository is not installed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import normshift
from experiments import export
from experiments.export import FORMATS, Flags, run
from experiments.study.flags import parse
from experiments.study.plugins import load_plugins
from experiments.study.trained import artefacts
from experiments.study.trained.artefacts import has_newer_exporter
from experiments.study.trained.task import task_of
from tests.experiments.refusals import refused
from tests.experiments.test_eval_robustness import save as save_classifier
from tests.lightning_modules.test_checkpoints import KINDS, saved
from tests.normshift.agreement import close

ALL = " ".join(FORMATS)

ELSEWHERE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("normshift", "experiments", "lightning_modules", "datamodules"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
import torch

images, scores = torch.load("example")
for file in sys.argv[1:]:
    if file.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    else:
        program = torch.export.load(file).module() if file.endswith(".pt2") else torch.jit.load(file)
        with torch.no_grad():
            found = program(images)
    assert found.shape == scores.shape
    assert (found - scores).abs().max() <= 1e-4 * scores.abs().max(), (file, (found - scores).abs().max())
assert not {"normshift", "experiments", "lightning_modules", "datamodules"} & {*sys.modules}
"""


def exported(line: str) -> dict:
    return run(parse(Flags, "", line.split()))


def run_elsewhere(files, images, scores, folder):
    torch.save((images, scores), folder / "example")
    command = [sys.executable, "-c", ELSEWHERE, *map(str, files)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("ibn-a", (72, 96), marks=pytest.mark.slow),
        ("adversarial", (16, 16)),
        pytest.param("anti-aliased", (32, 32), marks=pytest.mark.slow),
        pytest.param("sn in the decoder", (64, 96), marks=pytest.mark.slow),
    ],
)
def test_every_format_runs_without_this_repository(name, size, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    module = KINDS[name]()
    file = saved(module, tmp_path / "model.ckpt")
    found = exported(f"{file} --format {ALL} --size {size[0]} {size[1]}")
    assert [path.name for path in found.values()] == ["model.onnx", "model.pt2", "model.pt"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("largest difference from the network" in line for line in lines)
    images, network = torch.randn(4, 3, *size), task_of(module.task).exportable(module.eval()).network.eval()
    with torch.no_grad():
        scores = network(images)
        close(module(images), scores, 1e-6)
    run_elsewhere(found.values(), images, scores, tmp_path)


def test_a_network_under_a_norm_of_ones_own(tmp_path):
    """The norm's file is needed to export the network, and not to run it."""
    page = (Path(__file__).parents[2] / "docs" / "own-norm.md").read_text()
    plugin = tmp_path / "mynorm.py"
    plugin.write_text(re.search(r"```python\n(.+?)```", page, re.DOTALL)[1])
    load_plugins([str(plugin)])
    try:
        module = save_classifier(tmp_path / "model.ckpt", "mynorm").eval()
        found = exported(f"{tmp_path / 'model.ckpt'} --format torch-export torchscript --plugin {plugin}")
        images = torch.randn(4, 3, 32, 32)
        run_elsewhere(found.values(), images, module(images).detach(), tmp_path)
    finally:
        sys.modules.pop("plugin_mynorm", None)
        normshift.NORMS._known.pop("mynorm", None)


def test_the_lines_of_the_page(tmp_path, monkeypatch):
    """docs/deployment.md: a checkpoint's ONNX file is run, and a network of one's own leaves in three lines."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    save_classifier(tmp_path / "model.ckpt")
    exported("model.ckpt --format onnx")
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
    running, writing = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    exec(running, {"images": torch.randn(2, 3, 32, 32).numpy()})
    if not has_newer_exporter():
        writing = "\n".join(line for line in writing.splitlines() if "onnx" not in line)
    net = normshift.convert(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)), "ibn-a", where="1")
    folded, x = normshift.fold(net.eval())[0], torch.randn(2, 3, 16, 16)
    exec(writing, {"torch": torch, "folded": folded, "x": x})
    images = torch.randn(5, 3, 16, 16)
    for load, file in ((artefacts.load_program, "net.pt2"), (artefacts.load_trace, "net.pt")):
        close(load(tmp_path / file)(images).detach(), folded(images).detach(), 1e-5)
    assert not has_newer_exporter() or (tmp_path / "net.onnx").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_checkpoint_is_exported(name, tmp_path):
    pytest.importorskip("onnxruntime")
    file = saved(KINDS[name](), tmp_path / "model.ckpt")
    assert len(exported(f"{file} --format {ALL}")) == 3  # each has been compared with the network


def test_what_a_program_has_to_know_stands_beside(tmp_path, capsys):
    module = save_classifier(tmp_path / "run" / "bn-seed0" / "checkpoints" / "model.ckpt")
    found = exported(f"{tmp_path / 'run' / 'bn-seed0'} --format torchscript --out {tmp_path / 'served.pt'}")
    assert found == {"torchscript": tmp_path / "served.pt"}
    about = json.loads((tmp_path / "served.json").read_text())
    assert about["input"]["channels"] == "RGB" and about["input"]["mean"] == [0.485, 0.456, 0.406]
    assert about["output"]["classes"] == list(module.classes) and about["norm"] == "bn"
    (own,) = about["files"].values()
    assert (own["file"], own["height"], own["width"]) == ("served.pt", 32, 32) and own["largest_difference"] < 1e-4
    norms = len([layer for layer in module.net.modules() if isinstance(layer, torch.nn.BatchNorm2d)])
    assert f"{norms} of {norms} norms folded" in capsys.readouterr().out
    assert not any("batch_norm" in name for name in operators(found["torchscript"]))


def operators(file) -> set[str]:
    program = torch.jit.load(file)
    torch._C._jit_pass_inline(program.graph)
    return {node.kind() for node in program.graph.nodes()}


def test_norms_that_are_not_to_be_folded_stay(tmp_path):
    save_classifier(tmp_path / "model.ckpt")
    found = exported(f"{tmp_path / 'model.ckpt'} --format torchscript --no-fold --size 24 40")
    assert "aten::batch_norm" in operators(found["torchscript"])
    own = json.loads((tmp_path / "model.json").read_text())["files"]["torchscript"]
    assert (own["norms"], own["height"], own["width"]) == ("norms as they are", 24, 40)


def test_a_later_export_in_another_format_joins_the_first(tmp_path, capsys):
    save_classifier(tmp_path / "model.ckpt")
    exported(f"{tmp_path / 'model.ckpt'} --format torchscript")
    exported(f"{tmp_path / 'model.ckpt'} --format torch-export --size 16 16")
    files = json.loads((tmp_path / "model.json").read_text())["files"]
    assert {name: own["height"] for name, own in files.items()} == {"torchscript": 32, "torch-export": 16}
    save_classifier(tmp_path / "other.ckpt", "sn")
    for text in (None, "[]", "x"):
        if text:
            (tmp_path / "model.json").write_text(text)
        (tmp_path / "model.pt").unlink(missing_ok=True)
        line = f"{tmp_path / 'other.ckpt'} --format torchscript --out {tmp_path / 'model'}"
        assert "model.json exists already, and is not about this network" in refused(export, capsys, line)
        assert not (tmp_path / "model.pt").exists()


def test_the_older_exporter_writes_the_same(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    module = KINDS["anti-aliased"]()
    for parameter in module.parameters():  # of equal ones the older exporter drops one too many
        torch.nn.init.normal_(parameter, std=0.1)
    file = saved(module, tmp_path / "model.ckpt")
    monkeypatch.setattr(artefacts, "has_newer_exporter", lambda: False)
    exported(f"{file} --format onnx")  # compared in there
    assert isinstance(has_newer_exporter(), bool)


def test_another_program_than_the_networks_is_not_left_behind(tmp_path, monkeypatch, capsys):
    save_classifier(tmp_path / "model.ckpt")
    plain = artefacts.write_trace
    noisy = artefacts.Format(
        ".pt", lambda network, images, file: plain(torch.nn.Sequential(network, torch.nn.ReLU()), images, file),
        artefacts.load_trace,
    )  # fmt: skip
    monkeypatch.setitem(artefacts.FORMATS, "torchscript", noisy)
    said = refused(export, capsys, f"{tmp_path / 'model.ckpt'} --format torchscript")
    assert "model.pt did not compute what the network computes" in said and not (tmp_path / "model.pt").exists()


def test_mistakes_are_said_in_one_sentence(tmp_path, capsys, monkeypatch):
    save_classifier(tmp_path / "run" / "bn-seed0" / "checkpoints" / "model.ckpt")
    save_classifier(tmp_path / "run" / "bn-seed1" / "checkpoints" / "model.ckpt")
    own = tmp_path / "run" / "bn-seed0"
    (tmp_path / "there.pt").touch()
    (tmp_path / "x.ckpt").write_text("hello")
    for line, said in (
        ("--format onnx", "name one network to export: a checkpoint"),
        (f"{own} {own}", "name one network to export, not 2"),
        (f"{own} --format onnx tflite", "--format tflite: choose from onnx, torch-export, torchscript"),
        (f"{own} --size 32", "--size 32: give height and width"),
        (f"{own} --size 0 32", "--size"),
        (f"{tmp_path / 'run'}", "holds 2 networks: name one of them, such as"),
        (f"{tmp_path / 'nowhere'}", "no such checkpoint or folder"),
        (f"{tmp_path / 'x.ckpt'}", "cannot be read as a checkpoint"),
        (f"{own} --format torchscript --out {tmp_path / 'there.pt'}", "there.pt exists already: pass another --out"),
        (f"{own} --format torchscript --out {tmp_path / 'x.ckpt' / 'model'}", "cannot be written"),
    ):
        assert said in refused(export, capsys, line)
    monkeypatch.setattr(artefacts, "find_spec", lambda name: None)
    said = refused(export, capsys, f"{own} --format onnx torch-export")
    assert "--format onnx needs onnx, onnxscript, onnxruntime, not installed here: pip install -e '.[export]'" in said


def test_smoke_exports_an_untrained_network(tmp_path):
    for _ in range(2):  # over what there is
        found = exported(f"--smoke --format torch-export --out {tmp_path / 'some' / 'model'}")
    assert found["torch-export"].is_file()
