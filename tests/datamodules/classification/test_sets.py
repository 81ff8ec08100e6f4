"""Published classification sets, in miniature copies of their layouts."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from datamodules.classification.cifar import CIFAR
from datamodules.classification.domain_folders import MultiDomain
from datamodules.classification.imagenet import ImageNet, ImageNetC, ImageNetP, imagenet_words, wnids
from datamodules.classification.sets.domainnet import DOMAINNET
from datamodules.classification.sets.office_home import OFFICE_HOME
from datamodules.classification.sets.pacs import PACS
from datamodules.image_files import DataError, MissingDataError
from tests.datamodules.classification import published_layouts as published


def sentence(error: pytest.ExceptionInfo) -> str:
    """The error's message, which has to be one sentence."""
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 700
    return message


def check(samples, written, within: float = 3) -> None:
    """What is read is what was written; `within` a few grey levels where it went through a JPEG."""
    assert len(samples) == len(written) > 0
    assert samples.labels.dtype == np.int64 and samples.labels.tolist() == [label for _, label in written]
    for index, (image, label) in enumerate(written):
        read, read_label = samples[index]
        assert read.dtype == np.uint8 and read.shape == image.shape and read.flags.c_contiguous
        assert type(read_label) is int and read_label == label
        assert np.abs(read.astype(int) - image).max() <= within


# ImageNet.


def test_imagenet_labels_are_places_among_all_classes(tmp_path):
    for split, written in published.make_imagenet(tmp_path).items():
        imagenet = ImageNet(tmp_path, split)
        check(imagenet, written)
        assert len(imagenet.classes) == 1000
        assert {imagenet.classes[label]: label for label in imagenet.labels} == published.WNIDS


def test_imagenet_classes_are_in_order_and_named():
    assert list(wnids()) == sorted(set(wnids())) and len(wnids()) == 1000
    words = imagenet_words()
    assert words[0] == "tench" and words[151] == "Chihuahua" and words[999] == "toilet tissue"


def test_what_is_no_image_is_not_listed(tmp_path):
    written = published.make_imagenet(tmp_path)["val"]
    for name in (".DS_Store", "._n01440764_0.JPEG", "notes.txt"):
        (tmp_path / "val/n01440764" / name).write_bytes(b"x")
    (tmp_path / "val/.cache").mkdir()
    check(ImageNet(tmp_path, "val"), written)


def test_a_folder_that_is_no_class_of_imagenet(tmp_path):
    published.make_imagenet(tmp_path)
    (tmp_path / "val/n01440764").rename(tmp_path / "val/tench")
    with pytest.raises(DataError) as error:
        ImageNet(tmp_path, "val")
    assert str(tmp_path / "val/tench") in sentence(error) and "n01440764" in sentence(error)


def test_unsorted_images_are_told_how_to_be_sorted(tmp_path):
    for number in (1, 2):
        published.write_image(tmp_path / f"val/ILSVRC2012_val_0000000{number}.JPEG", published.flat(number))
    with pytest.raises(DataError) as error:
        ImageNet(tmp_path, "val")
    assert "2 unsorted images such as ILSVRC2012_val_00000001.JPEG" in sentence(error)
    assert "folder named by its WNID" in sentence(error) and "torchvision.datasets.ImageNet" in sentence(error)


def test_archives_within_the_archive_are_told_to_be_unpacked(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/n01440764.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"n01440764\.tar: unpack each"):
        ImageNet(tmp_path, "train")


def test_missing_parts_of_imagenet(tmp_path):
    for root, expected in ((tmp_path / "no", tmp_path / "no"), (tmp_path, tmp_path / "val")):
        with pytest.raises(MissingDataError) as error:
            ImageNet(root, "val")
        assert sentence(error).startswith(f"{expected} does not exist") and "image-net.org" in str(error.value)
    (tmp_path / "val").mkdir()
    with pytest.raises(MissingDataError, match="holds no class folder"):
        ImageNet(tmp_path, "val")
    (tmp_path / "val/n01440764").mkdir()
    with pytest.raises(MissingDataError, match="n01440764 holds no file"):
        ImageNet(tmp_path, "val")
    with pytest.raises(DataError, match="no split of ImageNet"):
        ImageNet(tmp_path, "test")


@pytest.mark.parametrize("group", ["", "noise/"])
def test_imagenet_c_with_and_without_the_archives_folders(group, tmp_path):
    written = published.make_wnid_folders(tmp_path / f"{group}gaussian_noise/3", ["n01440764", "n15075141"])
    check(ImageNetC(tmp_path, "gaussian_noise", 3), written)
    with pytest.raises(MissingDataError) as error:
        ImageNetC(tmp_path, "gaussian_noise", 4)
    assert "gaussian_noise/4 does not exist" in sentence(error) and "zenodo.org" in str(error.value)
    for severity in (0, 6, "3"):
        with pytest.raises(DataError, match="1 to 5"):
            ImageNetC(tmp_path, "gaussian_noise", severity)


def test_imagenet_p_videos(tmp_path):
    written = published.make_imagenet_p(tmp_path, frames=5)
    samples = ImageNetP(tmp_path, "tilt")
    assert samples[0][0].shape == (5, 48, 64, 3)
    check(samples, written, within=12)


def test_a_video_that_is_cut_short_is_named(tmp_path):
    published.make_imagenet_p(tmp_path)
    path = ImageNetP(tmp_path, "tilt").path(0)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError) as error:
        ImageNetP(tmp_path, "tilt")[0]
    assert str(path) in sentence(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [0, 1, 2, 10]}, "a label that is none of 0 to 9"),
        ({"labels": [0, 1, -2, 3]}, "a label that is none of 0 to 9"),
        ({"labels": 4}, "and 1 labels"),
        ({"labels": ["a"] * 4}, "a label that is none"),
        ({"data": np.zeros((4, 3072), np.float32)}, "float32 images"),
        ({"data": None}, "object images of shape"),
    ],
    ids=str,
)
def test_a_cifar_batch_of_other_contents(change, said, tmp_path):
    published.make_cifar_archive(tmp_path, packed=False)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    batch = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3]} | change
    path.write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match=said) as error:
        CIFAR(tmp_path, "test")
    assert str(path) in sentence(error)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("test_batch", os.mkfifo, "is a pipe"),
        ("batches.meta", os.mkdir, "is a folder"),
        ("test_batch", lambda path: path.symlink_to("/nowhere"), "is a link to /nowhere"),
    ],
)
def test_what_is_no_file_of_cifars_archive(name, make, said, tmp_path):
    published.make_cifar_archive(tmp_path, packed=False)
    path = tmp_path / "cifar-10-batches-py" / name
    path.unlink()
    make(path)
    with pytest.raises(DataError, match=said) as error:
        CIFAR(tmp_path, "test")
    assert str(path) in sentence(error)


@pytest.mark.parametrize("content", [b"\x80\x81\0", b""])
def test_a_list_of_domainnet_that_is_none(content, tmp_path):
    published.make_domains(tmp_path, domains=["clipart"])
    (tmp_path / "clipart_train.txt").write_bytes(content)
    with pytest.raises(DataError, match="clipart"):
        MultiDomain(DOMAINNET, tmp_path, "train", ("clipart",))


def test_videos_of_unlike_lengths(tmp_path):
    published.make_imagenet_p(tmp_path)
    other = published.make_imagenet_p(tmp_path / "other", frames=4)
    paths = [ImageNetP(root, "tilt").path(2) for root in (tmp_path, tmp_path / "other")]
    paths[1].rename(paths[0])
    with pytest.raises(DataError, match=r"has 4 frames of 64 x 48 pixels, and .* has 5 frames of 64 x 48") as error:
        ImageNetP(tmp_path, "tilt")[2]
    assert str(paths[0]) in sentence(error) and other
    assert ImageNetP(tmp_path, "tilt")[1][0].shape == (5, 48, 64, 3)


def test_a_class_folder_that_is_a_link_to_nothing(tmp_path):
    published.make_imagenet(tmp_path)
    (tmp_path / "val/n01443537").rename(tmp_path / "moved")
    (tmp_path / "val/n01443537").symlink_to(tmp_path / "moved")
    assert len(set(ImageNet(tmp_path, "val").labels)) == 4
    (tmp_path / "moved").rename(tmp_path / "gone")
    with pytest.raises(MissingDataError, match="n01443537 is a link that leads nowhere") as error:
        ImageNet(tmp_path, "val")
    assert sentence(error)


# Files.


def test_what_is_stored_in_whatever_way_comes_out_as_rgb(tmp_path):
    """As PIL converts it, which the published networks were trained through."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (6, 9, 4), np.uint8)).resize((90, 60))
    variants = {
        "grey.JPEG": colours.convert("L"), "cmyk.JPEG": colours.convert("RGB").convert("CMYK"),
        "alpha.png": colours, "grey.png": colours.convert("L"), "grey_alpha.png": colours.convert("LA"),
        "palette.png": colours.convert("RGB").quantize(16), "bits.png": colours.convert("1"),
        "pixel.JPEG": colours.convert("RGB").crop((0, 0, 1, 1)),
    }  # fmt: skip
    folder = tmp_path / "val/n01440764"
    folder.mkdir(parents=True)
    for name, image in variants.items():
        image.save(folder / name)
    colours.convert("RGB").save(folder / "png_in_truth.JPEG", format="PNG")  # as one of ImageNet's is
    imagenet = ImageNet(tmp_path, "val")
    assert len(imagenet) == len(variants) + 1
    for index in range(len(imagenet)):
        read, path = imagenet[index][0], imagenet.path(index)
        expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert read.shape == expected.shape and np.abs(read - expected).max() <= 2, path.name


def test_orientation_tags_are_left_alone(tmp_path):
    image = Image.fromarray(published.flat(3, (20, 30)))
    exif = image.getexif()
    exif[0x0112] = 6
    (tmp_path / "val/n01440764").mkdir(parents=True)
    image.save(tmp_path / "val/n01440764/a.JPEG", exif=exif)
    assert ImageNet(tmp_path, "val")[0][0].shape == (20, 30, 3)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "scrambled"])
def test_a_damaged_file_is_named_when_it_is_read(damage, tmp_path):
    published.make_imagenet(tmp_path)
    path = tmp_path / "val/n01440764/n01440764_0.JPEG"
    whole = path.read_bytes()
    broken = {"cut": whole[:-40], "empty": b"", "text": b"not found\n", "scrambled": whole[:2] + b"\xff\xda\xff\xd9"}
    path.write_bytes(broken[damage])
    imagenet = ImageNet(tmp_path, "val")
    with pytest.raises(DataError) as error:
        imagenet[0]
    assert str(path) in sentence(error)
    assert imagenet[1][1] == 0


def test_a_whole_jpeg_with_bytes_behind_it_is_read(tmp_path):
    """Cameras append more than a tail's worth, and a thumbnail's end mark is not the image's."""
    published.make_imagenet(tmp_path)
    path = tmp_path / "val/n01440764/n01440764_0.JPEG"
    path.write_bytes(path.read_bytes() + bytes(5000))
    check(ImageNet(tmp_path, "val"), published.make_imagenet(tmp_path / "again")["val"])


def test_names_of_any_bytes(tmp_path):
    folder = tmp_path / "val/n01440764"
    folder.mkdir(parents=True)
    path = os.fsencode(folder) + b"/\xe4\xffimage.JPEG"
    published.write_image(folder / "a.JPEG", published.flat(1))
    os.rename(folder / "a.JPEG", path)
    imagenet = ImageNet(tmp_path, "val")
    assert os.fsencode(imagenet.path(0)) == path and imagenet[0][1] == 0


# CIFAR.


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar_archives(classes, packed, tmp_path):
    written = published.make_cifar_archive(tmp_path, classes, packed=packed)
    for split, part in {"train": "train", "val": "test", "test": "test"}.items():
        cifar = CIFAR(tmp_path, split, classes)
        check(cifar, written[part], within=0)
        assert len(cifar.classes) == classes and len(set(cifar.classes)) == classes
    assert classes == 100 or cifar.classes == published.CIFAR10
    assert {path.name for path in tmp_path.iterdir()} == {  # nothing was unpacked
        f"cifar-{classes}-python.tar.gz" if packed else {10: "cifar-10-batches-py", 100: "cifar-100-python"}[classes]
    }


def test_cifar_pickles_of_python_3_are_read_too(tmp_path):
    published.make_cifar_archive(tmp_path, packed=False)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    image = np.arange(3072, dtype=np.uint8).reshape(1, -1)
    for keys in ("labels", "data"), (b"labels", b"data"):
        path.write_bytes(pickle.dumps(dict(zip(keys, ([7], image), strict=True)), protocol=2))
        read, label = CIFAR(tmp_path, "test")[0]
        assert label == 7
        np.testing.assert_array_equal(read.transpose(2, 0, 1).ravel(), image[0])


def test_samples_are_the_callers_own(tmp_path):
    published.make_cifar_archive(tmp_path)
    published.make_cifar_tree(tmp_path / "tree")
    for cifar in (CIFAR(tmp_path, "test"), CIFAR(tmp_path / "tree", "test")):
        before = cifar[0][0].copy()
        cifar[0][0][:] = 0
        np.testing.assert_array_equal(cifar[0][0], before)


def test_cifar_tree(tmp_path):
    for split, written in published.make_cifar_tree(tmp_path).items():
        cifar = CIFAR(tmp_path, split)
        check(cifar, written, within=0)
        check(cifar, written, within=0)  # from memory
        assert cifar.classes == published.CIFAR10


def test_a_tree_that_is_not_cifars(tmp_path):
    published.make_cifar_tree(tmp_path)
    with pytest.raises(DataError, match="holds 10 class folders, not the 100 of CIFAR-100"):
        CIFAR(tmp_path, "train", 100)
    (tmp_path / "train/dog").rename(tmp_path / "train/dogs")
    with pytest.raises(DataError, match=r"has the class 'dogs', but .*test does not"):
        CIFAR(tmp_path, "train")


def test_an_image_of_another_size_in_the_tree_is_named(tmp_path):
    published.make_cifar_tree(tmp_path)
    path = tmp_path / "train/cat/0001.png"
    published.write_image(path, published.flat(0, (30, 40)))
    cifar = CIFAR(tmp_path, "train")
    with pytest.raises(DataError, match=r"cat/0001\.png is 40 x 30 pixels, not CIFAR's 32 x 32\."):
        cifar[2 * 3 + 1]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_cifar_archive_that_is_cut_short(share, tmp_path):
    published.make_cifar_archive(tmp_path, images=20)
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError) as error:
        CIFAR(tmp_path, "test")
    assert str(path) in sentence(error) and "get it again" in str(error.value)


def test_an_unpacked_batch_that_is_cut_short_or_missing(tmp_path):
    published.make_cifar_archive(tmp_path, packed=False)
    path = tmp_path / "cifar-10-batches-py/data_batch_3"
    whole = path.read_bytes()
    for broken in (whole[:200], whole[:-3], b""):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"data_batch_3 is cut short or damaged"):
            CIFAR(tmp_path, "train")
    path.unlink()
    with pytest.raises(MissingDataError, match="data_batch_3 is not there: unpack the archive again"):
        CIFAR(tmp_path, "train")
    assert len(CIFAR(tmp_path, "test")) == 4


def test_an_archive_that_lacks_a_batch(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("cifar-10-batches-py/readme.html"), io.BytesIO())
    with pytest.raises(DataError, match=r"lacks cifar-10-batches-py/batches.meta \(and 1 more like it\)"):
        CIFAR(tmp_path, "test")


def test_a_pickle_cannot_run_code(tmp_path):
    published.make_cifar_archive(tmp_path, packed=False)
    marker = tmp_path / "ran"
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(b"cos\nsystem\n(S'touch " + os.fsencode(marker) + b"'\ntR.")
    with pytest.raises(DataError, match=r"asks for os\.system"):
        CIFAR(tmp_path, "test")
    assert not marker.exists()


def test_labels_without_their_images(tmp_path):
    published.make_cifar_archive(tmp_path, packed=False)
    path = tmp_path / "cifar-10-batches-py/test_batch"
    path.write_bytes(published.python2_pickle({"labels": [1, 2, 3], "data": np.zeros((2, 3072), np.uint8)}))
    with pytest.raises(DataError, match=r"images of shape \(2, 3072\) and 3 labels"):
        CIFAR(tmp_path, "test")
    path.write_bytes(published.python2_pickle({"labels": [1, 2]}))
    with pytest.raises(DataError, match="lacks 'data'"):
        CIFAR(tmp_path, "test")


def test_no_cifar(tmp_path):
    with pytest.raises(MissingDataError) as error:
        CIFAR(tmp_path, "train")
    assert str(tmp_path / "cifar-10-python.tar.gz") in sentence(error) and "cs.toronto.edu" in str(error.value)
    with pytest.raises(DataError, match="'all' is no split of CIFAR-10"):
        CIFAR(tmp_path, "all")


# Sets of several domains.


def test_all_domains_joined_and_one_alone(tmp_path):
    written = published.make_domains(tmp_path)
    check(MultiDomain(PACS, tmp_path, "all"), [sample for domain in published.PACS for sample in written[domain]])
    photo = MultiDomain(PACS, tmp_path, "all", ("photo",))
    check(photo, written["photo"])
    assert photo.classes == ("dog", "horse")


@pytest.mark.parametrize("folder", ["Real World", "Real_World", "RealWorld"])
def test_office_homes_fourth_domain_however_it_is_spelt(folder, tmp_path):
    written = published.make_domains(tmp_path, (*published.OFFICE_HOME[:3], folder), ("Alarm_Clock", "TV"))
    check(MultiDomain(OFFICE_HOME, tmp_path, "all", ("RealWorld",)), written[folder])
    assert len(MultiDomain(OFFICE_HOME, tmp_path, "all")) == 80


def test_a_fifth_of_each_class_is_held_out(tmp_path):
    published.make_domains(tmp_path, images=23)
    for domains in (None, ("sketch",)):
        train, val, whole = (MultiDomain(PACS, tmp_path, split, domains) for split in ("train", "val", "all"))
        paths = [{samples.path(index) for index in range(len(samples))} for samples in (train, val, whole)]
        assert not paths[0] & paths[1] and paths[0] | paths[1] == paths[2]
        count = 4 * len(domains or published.PACS)
        assert np.bincount(val.labels).tolist() == [count, count]
    places = {int(path.stem.removeprefix("pic_")) for path in paths[1]}
    assert places != set(range(4, 23, 5))  # pseudo-random: neighbours look alike
    again = MultiDomain(PACS, tmp_path, "val", ("sketch",))
    assert [again.path(index) for index in range(len(again))] == [val.path(index) for index in range(len(val))]


def test_a_trial_holds_out_a_fifth_of_each_domain(tmp_path):
    """DomainBed's: rounded down, whatever the classes, anew for each trial and apart for each domain."""
    published.make_domains(tmp_path, images=23)
    places = {}
    for trial in (0, 1):
        for domain in ("sketch", "photo"):
            inside, outside = (MultiDomain(PACS, tmp_path, f"{part}{trial}", (domain,)) for part in ("in", "out"))
            paths = [{samples.path(index) for index in range(len(samples))} for samples in (inside, outside)]
            assert not paths[0] & paths[1] and len(paths[0] | paths[1]) == 46 and len(outside) == 9
            places[trial, domain] = frozenset(path.relative_to(tmp_path / domain) for path in paths[1])
    assert len(set(places.values())) == 4
    again = MultiDomain(PACS, tmp_path, "out01", ("photo",))  # a number, however it is written
    assert {again.path(i).relative_to(tmp_path / "photo") for i in range(9)} == places[1, "photo"]
    assert len(MultiDomain(PACS, tmp_path, "out1")) == 4 * 9
    with pytest.raises(DataError, match="'out' is no split of PACS"):
        MultiDomain(PACS, tmp_path, "out")


def test_the_held_out_images_never_change(tmp_path):
    """Or a checkpoint would be evaluated on images that it was trained on by another release."""
    published.make_domains(tmp_path)
    val = MultiDomain(PACS, tmp_path, "val", ("photo",))
    assert [val.path(index).relative_to(tmp_path).as_posix() for index in range(len(val))] == HELD_OUT


HELD_OUT = ["photo/dog/pic_008.jpg", "photo/dog/pic_009.png", "photo/horse/pic_006.jpg", "photo/horse/pic_007.png"]


def test_few_images_a_class_go_to_train(tmp_path):
    published.make_domains(tmp_path, images=4)
    assert len(MultiDomain(PACS, tmp_path, "train", ("photo",))) == 8
    with pytest.raises(DataError, match="too few images a class for a 'val' split"):
        MultiDomain(PACS, tmp_path, "val", ("photo",))


def test_domainnets_lists_are_honoured(tmp_path, caplog):
    written = published.make_domains(tmp_path, published.DOMAINNET, ("The_Mona_Lisa", "aircraft_carrier"))
    for domain in published.DOMAINNET[:5]:
        published.make_domainnet_lists(tmp_path, domain, test=3)
    real = written["real"]
    test = [sample for index, sample in enumerate(real) if index % 10 < 3]
    check(MultiDomain(DOMAINNET, tmp_path, "train", ("real",)), [s for i, s in enumerate(real) if i % 10 >= 3])
    check(MultiDomain(DOMAINNET, tmp_path, "test", ("real",)), test)
    check(MultiDomain(DOMAINNET, tmp_path, "val", ("real",)), test)
    check(MultiDomain(DOMAINNET, tmp_path, "all", ("real",)), real)
    assert len(MultiDomain(DOMAINNET, tmp_path, "val", ("sketch",))) == 4  # without lists: a fifth
    with pytest.raises(DataError, match="sketch of DomainNet has no published test split"):
        MultiDomain(DOMAINNET, tmp_path, "test")
    assert not caplog.text
    (tmp_path / "real/aircraft_carrier/pic_009.png").unlink()
    assert len(MultiDomain(DOMAINNET, tmp_path, "train", ("real",))) == 13
    assert "1 of the 14 images listed" in caplog.text and "aircraft_carrier/pic_009.png" in caplog.text


def test_lists_without_their_images(tmp_path):
    published.make_domains(tmp_path, ("real",))
    (tmp_path / "real_train.txt").write_text("real/dog/elsewhere.jpg 0\n")
    with pytest.raises(MissingDataError, match="None of the 1 images"):
        MultiDomain(DOMAINNET, tmp_path, "train", ("real",))
    with pytest.raises(MissingDataError, match=r"real_test\.txt does not exist"):
        MultiDomain(DOMAINNET, tmp_path, "test", ("real",))


def test_domains_that_differ_in_their_classes(tmp_path):
    published.make_domains(tmp_path)
    (tmp_path / "sketch/horse").rename(tmp_path / "sketch/pony")
    for domains in (None, ("photo",), ("sketch",)):
        with pytest.raises(DataError) as error:
            MultiDomain(PACS, tmp_path, "train", domains)
        assert "has the class 'horse', but" in sentence(error) or "has the class 'pony', but" in sentence(error)
        assert "sketch" in str(error.value)


def test_missing_domains(tmp_path):
    with pytest.raises(MissingDataError) as error:
        MultiDomain(OFFICE_HOME, tmp_path / "no", "train")
    assert str(tmp_path / "no") in sentence(error) and "hemanthdv.org" in str(error.value)
    published.make_domains(tmp_path, published.OFFICE_HOME[:3])
    assert len(MultiDomain(OFFICE_HOME, tmp_path, "all", ("Product",))) == 20
    with pytest.raises(MissingDataError) as error:
        MultiDomain(OFFICE_HOME, tmp_path, "train")
    assert f"{tmp_path / 'Real World'} does not exist" in sentence(error)
    (tmp_path / "Art/empty").mkdir()
    (tmp_path / "Clipart/empty").mkdir()
    (tmp_path / "Product/empty").mkdir()
    with pytest.raises(MissingDataError, match="empty holds no file"):
        MultiDomain(OFFICE_HOME, tmp_path, "train", ("Art",))
