import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.image_files import DataError, MissingDataError
from datamodules.segmentation.class_uniform import class_weights, images_by_class
from datamodules.segmentation.data import Resized, SegmentationData, TrainSamples
from datamodules.segmentation.domains import DOMAINS, Domain, open_domain
from datamodules.segmentation.labels import STREET
from datamodules.worlds.streets.world import Streets
from tests.datamodules.segmentation.published_layouts import make_bdd100k_drivable, make_camvid


def streets(**changes) -> SegmentationData:
    settings = {
        "crop": (48, 64),
        "height": 64,
        "batch_size": 2,
        "train_scenes": 6,
        "evaluation_scenes": 3,
        "class_uniform": 0.0,
    }
    return SegmentationData("streets-game", ["streets-night", "streets-fog"], **settings | changes)


class Listed:
    """A data set out of a list of labels, whose images are blank."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return np.zeros((*self.labels[index].shape, 3), np.uint8), self.labels[index]

    def label(self, index):
        return self.labels[index]


def test_batches_and_the_order_of_the_evaluated():
    data = streets()
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (2, 3, 48, 64) and labels.shape == (2, 48, 64) and labels.dtype == torch.int64
    assert [domain.name for domain in data.evaluated] == ["streets-game", "streets-night", "streets-fog"]
    for loader in data.val_dataloader():
        assert sum(len(images) for images, _ in loader) == 3
    game, night, _ = (next(iter(loader)) for loader in data.val_dataloader())
    assert torch.equal(game[1], night[1]) and not torch.allclose(game[0], night[0])


def test_training_and_evaluation_scenes_differ():
    data = streets()
    assert not np.array_equal(data.source.samples[0][1], data.evaluated[0].samples[0][1])


def test_the_source_among_the_targets_is_evaluated_once():
    data = SegmentationData("streets-game", ["streets-game", "streets-fog"], crop=(48, 64), height=64)
    assert [domain.name for domain in data.evaluated] == ["streets-game", "streets-fog"]


def test_every_process_evaluates_its_own_share():
    data = streets(evaluation_scenes=5)
    seen = []
    for rank in range(2):
        data.trainer = type("Trainer", (), {"world_size": 2, "global_rank": rank})()
        loader = data.evaluation_loader(data.evaluated[0])
        seen += [image.sum().item() for images, _ in loader for image in images]
    assert len(seen) == 5 and len(set(seen)) == 5


def test_what_one_process_measures_does_not_depend_on_how_many_there_are():
    """Divergence once saw only the first process's share, and other images if that process had been started again."""
    data = streets(evaluation_scenes=5)
    alone = torch.cat([images for images, _ in data.undivided_loader(data.evaluated[1])])
    data.trainer = type("Trainer", (), {"world_size": 2, "global_rank": 0})()
    assert torch.equal(torch.cat([images for images, _ in data.undivided_loader(data.evaluated[1])]), alone)
    assert len(alone) == 5


def test_every_process_trains_on_its_own_share():
    data = streets(train_scenes=8, batch_size=1)
    shares = []
    for rank in range(2):
        data.trainer = type("Trainer", (), {"world_size": 2, "global_rank": rank})()
        data.position = lambda: (0, 0)
        shares.append({draw.what for batch in data.train_dataloader().batch_sampler for draw in batch})
    assert shares[0] | shares[1] == set(range(8)) and not shares[0] & shares[1]


def test_finding_classes_leaves_the_random_numbers_alone(tmp_path, monkeypatch):
    """Whether the answer was on disk already must not decide on what a seed trains on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_camvid(tmp_path / "camvid", n=2, size=(40, 60))
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        images_by_class(open_domain("camvid", "train", tmp_path))
        drawn.append(torch.rand(()).item())
    torch.manual_seed(0)
    assert drawn == [torch.rand(()).item()] * 2


def test_the_split_trained_on_is_not_evaluated(tmp_path):
    for source, targets in (("streets-game:val", []), ("streets-game", ["streets-game:train"])):
        with pytest.raises(DataError, match="would be evaluated on the images it is trained on"):
            SegmentationData(source, targets, str(tmp_path), crop=(32, 32))


def test_all_missing_sets_are_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"(?s)get gta5 from .*; .*get cityscapes from "):
        SegmentationData("gta5", ["cityscapes"], str(tmp_path), crop=(32, 32))


def test_unknown_ids_of_a_target_are_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_camvid(tmp_path / "camvid", n=2, size=(40, 60))
    label = sorted((tmp_path / "camvid" / "testannot").iterdir())[0]
    Image.fromarray(np.full((40, 60), 99, np.uint8)).save(label)
    data = SegmentationData("streets-game", ["camvid:test"], str(tmp_path), crop=(32, 32))
    with pytest.raises(DataError, match="holds the id 99, but camvid defines 0 to 11"):
        data.read_labels()


def test_real_images_are_resized_with_their_labels(tmp_path):
    make_camvid(tmp_path / "camvid", n=2, size=(60, 90))
    data = SegmentationData("camvid", ["camvid:test"], str(tmp_path), crop=(32, 32), height=40, batch_size=2)
    images, labels = next(iter(data.evaluation_loader(data.evaluated[1])))
    assert images.shape == (1, 3, 40, 60) and labels.shape == (1, 40, 60)
    _, whole = Resized(data.evaluated[1].samples, None)[0]
    assert whole.shape == (60, 90)


@pytest.mark.parametrize("height", [25, 40, 64, 90, 150])  # smaller, and larger
def test_a_resized_label_is_what_the_resized_image_shows_at_its_centres(height):
    """Independent truth: Pillow's nearest neighbour reads at pixel centres, floor((i + 0.5) * scale)."""
    rng = np.random.default_rng(height)
    label = rng.integers(0, 19, (80, 130)).astype(np.uint8)
    image = np.repeat(label[..., None], 3, 2)
    small, found = Resized([(image, label)], height)[0]
    size = (round(130 * height / 80), height)
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST)))
    assert small.shape == (*found.shape, 3)


def test_a_perfect_prediction_is_perfect_on_shrunken_scenes():
    """The class that most of a small pixel shows is what is asked for, wherever there is a majority."""
    image, label = Streets("city", "val", 1, (512, 1024))[0]
    shares = [cv2.resize((label == c).astype(np.float32), (128, 64), interpolation=cv2.INTER_AREA) for c in range(19)]
    perfect, sure = np.argmax(shares, 0), np.max(shares, 0) > 0.5
    found = Resized([(image, label)], 64)[0][1]
    assert (found != perfect)[sure].mean() < 0.01  # 0.044 from corners


def test_domains_labelled_otherwise_are_refused(tmp_path):
    make_bdd100k_drivable(tmp_path / "bdd100k", n=2, size=(40, 60))
    with pytest.raises(
        DataError, match=r"streets-city is labelled in 19 street classes and bdd100k-drivable in 3 drivable"
    ):
        SegmentationData("bdd100k-drivable", ["streets-city"], str(tmp_path), crop=(32, 32))


def test_unknown_domains_and_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"unknown domain 'nowhere': choose from streets-game, .*, camvid"):
        open_domain("nowhere", "val", tmp_path)
    with pytest.raises(DataError, match="unknown split 'dev'"):
        open_domain("streets-game:dev", "val", tmp_path)


@pytest.mark.parametrize("name", [name for name in DOMAINS if not name.startswith("streets-")])
def test_a_missing_set_says_where_it_is_to_be_had(name, tmp_path):
    with pytest.raises(
        DataError, match=r"does not exist; get .* from https://.* and point to the folder that holds .*"
    ):
        open_domain(name, "train", tmp_path)


def test_images_by_class_counts_what_is_there():
    labels = [np.full((4, 4), c, np.uint8) for c in (0, 5, 5, 255)]
    labels[0][0, 0] = 18
    found = images_by_class(Domain("listed", Listed(labels), STREET, tuple(range(19)), {}))
    assert {c: list(images) for c, images in found.items()} == {0: [0], 5: [1, 2], 18: [0]}


def test_class_weights_by_hand():
    """12, 3 and 1 of 16 known pixels: shares 3/4, 3/16 and 1/16."""
    label = np.array([[0] * 12, [5] * 3 + [18] + [255] * 8], np.uint8)
    domain = Domain("listed", Listed([label]), STREET, tuple(range(19)), {})
    shares = np.array([12, 3, 1]) / 16
    found = class_weights(domain, 0.5)
    np.testing.assert_allclose(found[[0, 5, 18]], shares**-0.5 / (shares**0.5).sum())
    assert found[[0, 5, 18]] @ shares == pytest.approx(1) and set(np.delete(found, [0, 5, 18])) == {1.0}


def test_scenes_are_drawn_once(monkeypatch):
    drawn, draw = [], Streets.__getitem__
    monkeypatch.setattr(Streets, "__getitem__", lambda self, index: drawn.append(index) or draw(self, index))
    data = streets()
    for _ in range(2):
        batches = [images for images, _ in data.evaluation_loader(data.evaluated[1])]
    assert sorted(drawn) == [0, 1, 2] and len(torch.cat(batches)) == 3
    large = open_domain("streets-night", "train", "data", 1024)
    assert isinstance(large.samples, Streets)  # 17 GB are not kept


def test_images_by_class_is_kept_for_sets_on_disk_and_forgotten_when_they_change(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_camvid(tmp_path / "camvid", n=2, size=(40, 60))
    first = images_by_class(open_domain("camvid", "train", tmp_path))
    kept = list((tmp_path / "cache" / "normshift").iterdir())
    assert len(kept) == 1
    np.save(kept[0], np.zeros((2, 19), bool))  # what is kept is what is used
    assert images_by_class(open_domain("camvid", "train", tmp_path)) == {}
    label = open_domain("camvid", "train", tmp_path).samples.pairs[0][1]
    label.write_bytes(label.read_bytes() + b"\0")
    again = images_by_class(open_domain("camvid", "train", tmp_path))
    assert {c: list(i) for c, i in again.items()} == {c: list(i) for c, i in first.items()}


def test_class_uniform_samples_draw_classes_and_not_images():
    """Class 9 stands in 1 of 50 images; drawn class by class it comes up half of the time."""
    labels = [np.zeros((32, 32), np.uint8) for _ in range(50)]
    labels[17][:] = 9
    by_class = {0: np.delete(np.arange(50), 17), 9: np.array([17])}
    torch.manual_seed(0)

    def transform(image, label, aim=None):
        return image, torch.from_numpy(label)

    uniform = TrainSamples(Listed(labels), transform, by_class, 1.0)
    share = np.mean([(uniform[i % 50][1] == 9).any().item() for i in range(400)])
    assert 0.4 < share < 0.6
    plain = TrainSamples(Listed(labels), transform, by_class, 0.0)
    assert sum((plain[i][1] == 9).any().item() for i in range(50)) == 1
