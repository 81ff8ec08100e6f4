"""Sets of labelled images by their names."""

import numpy as np
import pytest

from datamodules.classification.data import AdaptationData
from datamodules.classification.domains import ImageDomain, domains_of, open_images
from datamodules.classification.transforms import EvaluationImage
from datamodules.image_files import DataError, MissingDataError
from tests.datamodules.classification import published_layouts as published


def labels_of(samples: list) -> list[int]:
    return [label for _, label in samples]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Every set, each under its name."""
    root = tmp_path_factory.mktemp("data")
    published.make_imagenet(root / "imagenet")
    published.make_wnid_folders(root / "imagenet-c/weather/fog/3")
    published.make_imagenet_p(root / "imagenet-p")
    published.make_cifar_tree(root / "cifar10")
    published.make_cifar_archive(root / "cifar100", 100)
    published.make_domains(root / "office-home", published.OFFICE_HOME)
    published.make_domains(root / "pacs")
    published.make_domains(root / "domainnet", published.DOMAINNET)
    return root


@pytest.mark.parametrize(
    ("name", "split", "length", "classes"),
    [
        ("imagenet", "train", 8, 1000),
        ("imagenet", "val", 8, 1000),
        ("imagenet-c/fog/3", "val", 8, 1000),
        ("imagenet-p/tilt", "val", 4, 1000),
        ("cifar10", "train", 20, 10),
        ("cifar10", "test", 20, 10),
        ("cifar100", "val", 4, 100),
        ("office-home", "train", 64, 2),
        ("office-home/Real World", "val", 4, 2),
        ("pacs", "val", 16, 2),
        ("pacs/art_painting", "train", 16, 2),
        ("domainnet/quickdraw", "all", 20, 2),
    ],
)
def test_every_set_opens_by_name(name, split, length, classes, data_root):
    domain = open_images(name, split, data_root)
    assert domain.name == name and domain.on_disk
    assert len(domain.samples) == len(domain.samples.labels) == length
    assert len(domain.classes) == classes and domain.classes == tuple(domain.samples.classes)
    image, label = domain.samples[length - 1]
    assert image.dtype == np.uint8 and image.shape[-1] == 3 and label == domain.samples.labels[-1]


@pytest.mark.parametrize("spelt", ["RealWorld", "Real World", "real_world", "REAL-WORLD"])
def test_a_domain_however_it_is_spelt(spelt, data_root):
    samples = open_images(f"office-home/{spelt}", "all", data_root).samples
    assert {samples.path(index).parent.parent.name for index in range(len(samples))} == {"Real World"}


def test_the_domains_of_a_set_open(data_root):
    assert domains_of("pacs", data_root) == ("pacs/art_painting", "pacs/cartoon", "pacs/photo", "pacs/sketch")
    whole = open_images("pacs", "train", data_root)
    parts = [open_images(name, "train", data_root) for name in domains_of("pacs", data_root)]
    assert [part.classes for part in parts] == [whole.classes] * 4
    assert [label for part in parts for label in part.samples.labels] == whole.samples.labels.tolist()
    assert domains_of("office-home", data_root)[-1] == "office-home/RealWorld"
    assert len(domains_of("domainnet", data_root)) == 6


def test_the_domains_that_are_on_disk(tmp_path):
    published.make_domains(tmp_path / "domainnet", ("real", "clipart"))
    assert domains_of("domainnet", tmp_path) == ("domainnet/clipart", "domainnet/real")
    with pytest.raises(MissingDataError, match=r"pacs does not exist"):
        domains_of("pacs", tmp_path)
    (tmp_path / "pacs").mkdir()
    with pytest.raises(MissingDataError, match=r"pacs/art_painting does not exist"):
        domains_of("pacs", tmp_path)
    with pytest.raises(DataError, match="'imagenet' is no set of several domains"):
        domains_of("imagenet", tmp_path)


def test_cifar_where_torchvision_unpacks_it(tmp_path):
    written = published.make_cifar_archive(tmp_path, packed=False)
    assert open_images("cifar10", "test", tmp_path).samples.labels.tolist() == labels_of(written["test"])


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("imagenets", "val", "unknown set 'imagenets': choose from cifar10, "),
        ("imagenet/n01440764", "val", "unknown set"),
        ("imagenet-c", "val", "unknown set"),
        ("imagenet-c/fog", "val", "unknown set"),
        ("imagenet-c/fog/high", "val", "severity 'high' of ImageNet-C, which has 1 to 5"),
        ("imagenet-c/fog/3", "train", "has no 'train' split"),
        ("imagenet-p/tilt", "test", "has no 'test' split"),
        ("pacs/clipart", "val", "unknown domain 'pacs/clipart': choose from art_painting, cartoon, photo, sketch"),
        ("pacs/photo/dog", "val", "unknown set"),
        ("pacs", "held-out", "'held-out' is no split of PACS"),
        ("", "val", "unknown set ''"),
    ],
)
def test_what_does_not_exist(name, split, message, data_root):
    with pytest.raises(DataError) as error:
        open_images(name, split, data_root)
    assert message in str(error.value) and not isinstance(error.value, MissingDataError)


@pytest.mark.parametrize(
    "name", ["imagenet", "imagenet-c/fog/3", "imagenet-p/tilt", "cifar10", "cifar100", "pacs", "pacs/photo"]
)
def test_a_set_that_is_not_on_disk(name, tmp_path):
    with pytest.raises(MissingDataError) as error:
        open_images(name, "val", tmp_path)
    assert f"{tmp_path / name.partition('/')[0]} does not exist" in str(error.value) and "https://" in str(error.value)


# Sets that do not belong together.


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cifar10+shapes", "shapes has 10 classes (apple, bell, bird, ...), not the 10 (airplane, "),
        ("pacs/photo+office-home", "office-home has 2 classes (dog, horse), not the 2 (cat, dog)"),
        ("pacs+cifar100", "cifar100 has 100 classes"),
        ("imagenet+cifar10", "not the 1000 (n01440764, "),
        ("imagenet+imagenet-p/tilt", "imagenet+imagenet-p/tilt joins images and videos"),
    ],
)
def test_sets_of_other_classes_are_not_joined(name, said, data_root, tmp_path):
    published.make_domains(tmp_path / "pacs", classes=("cat", "dog"))
    for folder in ("imagenet", "imagenet-p", "cifar10", "cifar100", "office-home"):
        (tmp_path / folder).symlink_to(data_root / folder)
    with pytest.raises(DataError) as error:
        open_images(name, "val", tmp_path)
    assert said in str(error.value) and str(error.value).endswith(".")


def test_sets_of_the_same_classes_are_joined(data_root):
    joined = open_images("imagenet+imagenet-c/fog/3", "val", data_root)
    parts = [open_images(name, "val", data_root).samples.labels.tolist() for name in ("imagenet", "imagenet-c/fog/3")]
    assert joined.samples.labels.tolist() == parts[0] + parts[1] and joined.on_disk and not joined.of_videos
    assert not open_images("shapes:val+shapes/photo", "val", data_root).on_disk


class Samples:
    def __init__(self, classes, labels):
        self.classes, self.labels = classes, np.array(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return np.zeros((16, 16, 3), np.uint8), int(self.labels[index])


def domain(name, classes, labels):
    return ImageDomain(name, Samples(classes, labels), tuple(classes))


def test_domains_to_learn_to_evaluate_on_and_to_adapt_to_have_the_same_classes():
    learned, turned = domain("a", ["cat", "dog"], [0, 1]), domain("b", ["dog", "cat"], [0, 0, 1])
    other, settings = domain("c", ["cat", "car"], [0, 1]), {"size": 16, "resize": None, "batch_size": 1}
    transform = EvaluationImage(16, None)
    data = AdaptationData(learned, [learned, turned], transform, target=turned, **settings)
    for found in (data.evaluated[1], data.target):
        assert found.classes == ("cat", "dog") and found.samples.labels.tolist() == [1, 1, 0]
        assert [found.samples[i][1] for i in range(3)] == [1, 1, 0]
    for evaluated, target in (([other], learned), ([learned], other)):
        with pytest.raises(DataError, match=r"c has 2 classes \(cat, car\), not the 2 \(cat, dog\) of a"):
            AdaptationData(learned, evaluated, transform, target=target, **settings)


# Shapes.


def test_shapes_of_all_styles_and_of_one(tmp_path):
    shapes = pytest.importorskip("datamodules.worlds.shapes.world")
    assert domains_of("shapes", tmp_path) == tuple(f"shapes/{style}" for style in shapes.STYLES)
    whole = open_images("shapes", "train", tmp_path)
    assert not whole.on_disk and len(whole.samples) == 4000 and whole.samples[0][0].shape == (32, 32, 3)
    for split, length in (("train", 4000), ("val", 1000), ("test", 1000)):
        one = open_images("shapes/cartoon", split, tmp_path)
        assert len(one.samples) == length and one.classes == whole.classes
        assert {one.samples.samples.style(index) for index in range(20)} == {"cartoon"}
    with pytest.raises(DataError, match="unknown domain 'shapes/fresco'"):
        open_images("shapes/fresco", "val", tmp_path)
    with pytest.raises(DataError):
        open_images("shapes", "all", tmp_path)


def test_shapes_are_drawn_once_and_as_they_are(tmp_path):
    shapes = pytest.importorskip("datamodules.worlds.shapes.world")
    samples = open_images("shapes", "val", tmp_path, size=40, length=12).samples
    drawn = shapes.Shapes("val", length=12, size=40)
    for _ in range(2):
        for index in range(12):
            np.testing.assert_array_equal(samples[index][0], drawn[index][0])
            assert samples[index][1] == drawn[index][1] == samples.labels[index]
