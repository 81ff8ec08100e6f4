"""What trained networks make of pictures: label maps, overlays and tables of classes."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.classification.transforms import EvaluationImage
from datamodules.segmentation.labels import STREET
from datamodules.segmentation.transforms import EvalTransform
from experiments import predict
from experiments.predict import Flags, run
from experiments.study.flags import parse
from experiments.study.trained.pictures import pictures_in
from experiments.tasks.trained_segmentation import largest
from tests.experiments.refusals import refused
from tests.experiments.test_eval_robustness import save as save_classifier
from tests.lightning_modules.test_checkpoints import saved, segmentation

QUIET = "--workers 0 --gpus 0"


def predicted(line: str, out):
    return run(parse(Flags, "", f"{line} {QUIET} --out {out}".split()))


def picture(file, size=(50, 71), seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(image).save(file)
    return image


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    file = tmp_path_factory.mktemp("trained") / "model.ckpt"
    module = segmentation(recipe={"height": None})
    saved(module, file)
    return file, module.eval()


def test_label_maps_are_the_networks_classes_in_the_palette(segmenter, tmp_path):
    file, module = segmenter
    image = picture(tmp_path / "in" / "street.png")
    out = predicted(f"{file} {tmp_path / 'in'} --overlay", tmp_path / "out")
    written = Image.open(out / "labels" / "street.png")
    with torch.no_grad():
        scores = module(EvalTransform()(image, image[..., 0])[0][None])[0]
    assert written.mode == "P" and np.array_equal(np.asarray(written), scores.argmax(0).numpy())
    palette = np.array(written.getpalette()).reshape(-1, 3)
    assert palette.shape == (256, 3) and palette[255].tolist() == [0, 0, 0]
    assert [tuple(colour) for colour in palette[:19].tolist()] == list(STREET.palette)
    coloured = np.asarray(written.convert("RGB")).astype(int)
    shown = np.asarray(Image.open(out / "overlays" / "street.png"))
    assert np.array_equal(shown, (image.astype(int) + coloured) // 2)
    rows = list(csv.reader((out / "classes.csv").open()))
    assert rows[1] == ["0", "road", "128", "64", "128"] and rows[-1] == ["255", "ignored", "0", "0", "0"]
    assert len(rows) == 1 + 19 + 1


def test_pictures_are_seen_at_the_recipes_height(tmp_path):
    file = saved(segmentation(recipe={"height": 64, "evaluation": "sliding"}), tmp_path / "model.ckpt")
    picture(tmp_path / "large.jpg", (150, 301))
    out = predicted(f"{file} {tmp_path / 'large.jpg'}", tmp_path / "out")
    assert Image.open(out / "labels" / "large.png").size == (301, 150)


def test_the_largest_score_at_another_size():
    scores = torch.randn(5, 8, 9)
    resized = torch.nn.functional.interpolate(scores[None], (20, 31), mode="bilinear")[0]
    assert torch.equal(largest(scores, (20, 31)), resized.argmax(0))
    assert torch.equal(largest(scores, (8, 9)), scores.argmax(0))


def test_every_picture_has_a_name_of_its_own(tmp_path):
    for name in ("a/x.png", "b/x.png", "b/deep/x.png", "y.png", "y.jpg", ".hidden.png", "c/d/x.png", "e/d/x.png"):
        picture(tmp_path / name, (4, 4))

    def names(*given):
        return [str(one.name) for one in pictures_in([str(tmp_path / one) for one in given])]

    assert names("") == ["a/x", "b/deep/x", "b/x", "c/d/x", "e/d/x", "y.jpg", "y.png"]
    assert names("a", "b") == ["a/x.png", "deep/x", "b/x.png"]
    assert names("c/d", "e/d") == ["d/x.png", "d/x.png-2"]
    assert names("a/x.png", "a", "a/x.png") == ["x"]


def test_a_classifiers_table(tmp_path):
    module = save_classifier(tmp_path / "model.ckpt").eval()
    images = [picture(tmp_path / "in" / f"{i}.png", (40, 33), i) for i in range(5)]
    out = predicted(f"{tmp_path / 'model.ckpt'} {tmp_path / 'in'} --batch-size 2", tmp_path / "out")
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    with torch.no_grad():
        chances = module(torch.stack([EvaluationImage(32)(image) for image in images])).softmax(1)
    assert [row["image"] for row in rows] == [str(tmp_path / "in" / f"{i}.png") for i in range(5)]
    for row, own in zip(rows, chances, strict=True):
        best = own.topk(5)
        assert [row["class"], *(row[f"class {i}"] for i in range(2, 6))] == [module.classes[i] for i in best.indices]
        assert float(row["probability 5"]) == pytest.approx(best.values[4].item(), abs=1e-4)


def test_what_cannot_be_read_is_told_of_and_the_others_are_written(segmenter, tmp_path, capsys):
    for name in ("a.png", "c.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:200])
    line = f"{segmenter[0]} {tmp_path / 'in'} {QUIET} --out {tmp_path / 'out'}"
    said = refused(predict, capsys, line)
    assert "b.png is cut short" in said and f"the predictions of the others are in {tmp_path / 'out'}" in said
    assert sorted(file.name for file in (tmp_path / "out" / "labels").iterdir()) == ["a.png", "c.png"]
    assert "labels exists already: pass another --out" in refused(predict, capsys, line)


def test_mistakes_are_said_in_one_sentence(segmenter, tmp_path, capsys):
    save_classifier(tmp_path / "run" / "bn-seed0" / "checkpoints" / "model.ckpt")
    save_classifier(tmp_path / "run" / "bn-seed1" / "checkpoints" / "model.ckpt")
    picture(tmp_path / "x.png")
    (tmp_path / "empty").mkdir()
    for line, said in (
        (f"{segmenter[0]}", "name a checkpoint, and then the images"),
        (f"{segmenter[0]} {tmp_path / 'nowhere'}", "nowhere: there is no such file or folder"),
        (f"{segmenter[0]} {tmp_path / 'empty'}", "holds no image"),
        (f"{tmp_path / 'run'} {tmp_path / 'x.png'}", "holds 2 networks: name one of them, such as"),
        (f"{tmp_path / 'x.png'} {tmp_path / 'x.png'}", "cannot be read as a checkpoint"),
        (f"{tmp_path / 'run' / 'bn-seed0'} {tmp_path / 'x.png'} --overlay", "--overlay is for segmentation networks"),
    ):
        assert said in refused(predict, capsys, f"{line} {QUIET} --out {tmp_path / 'out'}")
