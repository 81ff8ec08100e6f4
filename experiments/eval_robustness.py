"""How robust are trained networks, side by side?

Robustness has many faces, and the papers each looked at one. ImageNet-C and -P (Hendrycks, Dietterich, ICLR 2019): a
ResNet-50 of 23.85 % clean error has mCE 76.7 and mFR 58.0. Anti-aliased CNNs (Zhang, ICML 2019): blur before
subsampling raises a ResNet-50's shift consistency from 89.20 to 91.32 % (filter 4), and lowers mFR to 51.2 (filter 5).
IBN-Net (Pan et al., ECCV 2018): instance norm in the shallow layers loses less under shifts of light and colour.

Eight GPUs, with data/imagenet on disk; the networks are shared out among the GPUs (not run here):

    python experiments/eval_robustness.py torchvision/resnet50 torchvision/alexnet --gpus 8 --workers 64

As published, on the files of ImageNet-C and -P in data/imagenet-c and data/imagenet-p:

    python experiments/eval_robustness.py torchvision/resnet50 --gpus 1 --published

A laptop: whatever a study has left behind, on the data it was trained on (nothing on disk for the embedded shapes):

    python experiments/cls_imagenet.py --norm bn ibn-a
    python experiments/eval_robustness.py runs/cls_imagenet

All parts together show each network some 360 views of an image: 0.9 s an image on one core for a CIFAR ResNet-20 at
32 x 32, of which the perturbations take three quarters; --parts and --images take less.

Evaluates every network on clean images, under IBN-Net's appearance shifts, ImageNet-C's corruptions and ImageNet-P's
perturbations, and by its shift consistency and calibration. Corruptions are generated here, once for all networks that
see images of one size. mCE, relative mCE and mFR divide by AlexNet's errors on the published files, and so are given
for these alone, with --published: they need all 1000 classes, at 224 x 224. What is generated here gets plain means,
under the names "mean error, corrupted" and "flip probability". Ends in one table; OUT gets table.md, results.csv and
one picture, robustness.png; W&B gets a run a network, of the keys that the dashboard shows.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.whole_file import write_whole
from experiments.study.bounds import Bounds
from experiments.study.flags import (
    UsageError,
    check_numbers,
    check_wandb,
    one_sentence,
    parse,
    register_plugins,
    smoke_wandb,
)

if TYPE_CHECKING:  # these load torch; a command line that asks for --help need not wait
    from pandas import DataFrame

    from datamodules.classification.domains import ImageDomain
    from experiments.study.run_lock import RunLock
    from experiments.study.tables import Table
    from experiments.tasks.evaluated_networks import Network

PARTS = ("clean", "shifts", "corruptions", "perturbations", "consistency")
SMALLER = ("ECE", "mean error, corrupted", "mCE", "relative mCE", "flip probability", "mFR", "top-5 distance")
HIDDEN = frozenset({"NLL"})
"""In results.csv alone: the table is wide as it is."""
POSITIONAL = {"positional": True, "custom_args": {"metavar": "NETWORK ..."}}
OFFERED = 200
"""Images of an embedded set, which has as many as it is asked for."""


@dataclass
class Flags:
    """Flags of this evaluation."""

    networks: list[str] = field(default_factory=list, metadata=POSITIONAL)
    """Checkpoints, folders of studies' runs (all their checkpoints; seeds of one arm are averaged), or names of
    torchvision's and timm's networks."""
    data: str | None = None
    """Set to evaluate on; by default what the checkpoints were trained on, and imagenet for names."""
    data_root: str = "data"
    """Folder that holds the real sets, each in a subfolder of its name."""
    split: str = "val"
    """Split of the set."""
    images: int | None = None
    """Evaluate so many images, spread over the classes; by default all, and 200 of an embedded set."""
    parts: list[str] = field(default_factory=lambda: list(PARTS))
    """What to measure, of clean shifts corruptions perturbations consistency."""
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Severities of the corruptions."""
    frames: int | None = None
    """Frames of a perturbation; by default as many as ImageNet-P's."""
    published: bool = False
    """Evaluate the published files of ImageNet-C and -P in DATA_ROOT/imagenet-c and imagenet-p."""
    frost: str | None = None
    """Folder of ImageNet-C's photographs of frost, frost1.png to frost5.jpg; by default frost is painted."""
    weights: str = "imagenet"
    """Weights of networks that are given by name: imagenet (downloaded) or none."""
    batch_size: int = 128
    """Images that go through a network at once; changes no result."""
    gpus: int | None = None
    """GPUs, 0 for the CPU; by default one where there is one. Several share the networks out among them."""
    workers: int | None = None
    """Loader processes, which corrupt the images; by default half the cores, at most 8."""
    seed: int = 0
    """Seed of corruptions and crops."""
    out: str = "runs/eval_robustness"
    """Folder for the table, the results and the picture."""
    plugin: list[str] = field(default_factory=list)
    """Python files that register norms of your own (docs/own-norm.md), of which a network may be."""
    wandb: str = "auto"
    """online, offline or disabled; auto is online where you are logged in and offline elsewhere."""
    smoke: bool = False
    """A small untrained network on a few embedded shapes, to see in seconds that everything fits together."""

    def __post_init__(self):
        register_plugins(self)
        check_numbers(self, images=Bounds(1, 10**9))
        for flag, chosen, known in (("parts", self.parts, PARTS), ("severities", self.severities, (1, 2, 3, 4, 5))):
            unknown = [value for value in chosen if value not in known]
            if unknown or not chosen:
                hint = " (networks come before flags that take several values)" if flag == "parts" and unknown else ""
                said = f"--{flag} {unknown[0] if unknown else ''}".strip()
                raise UsageError(f"{said}: choose from {', '.join(map(str, known))}{hint}.")
        if self.weights not in ("imagenet", "none"):
            raise UsageError(f"--weights {self.weights}: choose imagenet or none.")
        if self.published and self.frames is not None:
            raise UsageError("--frames shortens what is generated here: leave it out with --published.")
        if self.published and self.frost is not None:
            raise UsageError("--frost is for what is generated here: leave it out with --published.")
        check_wandb(self.wandb)
        if not self.networks and not self.smoke:
            raise UsageError("name a network to evaluate: a checkpoint, a run's folder, or a torchvision or timm name.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags) -> DataFrame:
    """Evaluate the networks; returns tidy results: arm, its columns, seed, part, condition, severity, measure,
    value."""
    import pandas as pd

    from datamodules.corruptions.frost import frost_photographs
    from experiments.study.settings import devices, loader_workers
    from lightning_modules.robustness.evaluator import evaluate

    flags = smoked(flags) if flags.smoke else flags
    out = Path(flags.out)
    if (out / "results.csv").exists() and not flags.smoke:
        raise UsageError(f"{out} holds an evaluation already: pass another --out, or move it away.")
    if (out / "arms.json").exists():
        raise UsageError(f"--out {out} holds a study's run, whose files an evaluation would replace: choose another.")
    accelerator, gpus = devices(flags)
    networks, domain = gathered(flags)
    check_fit(flags, networks, domain)
    lock = begun(out)
    for i, network in enumerate(networks):
        network.evaluated.net.to(f"cuda:{i % gpus}" if accelerator == "gpu" else "cpu")
    photographs = frost_photographs(flags.frost) if flags.frost else None
    files = PublishedFiles(flags) if flags.published else None
    rows = evaluate(
        [network.evaluated for network in networks],
        domain.samples,
        flags.parts,
        batch_size=flags.batch_size,
        severities=flags.severities,
        seed=flags.seed,
        frames=flags.frames,
        images=flags.images,
        workers=loader_workers(flags),
        published=files,
        frost=photographs,
        progress=True,
    )
    of = {network.evaluated.name: network for network in networks}
    labelled = [(of[row["network"]], {key: v for key, v in row.items() if key != "network"}) for row in rows]
    results = pd.DataFrame({"arm": n.arm, **n.columns, "seed": n.seed, **row} for n, row in labelled)
    write(flags, out, results, closing_table(flags, networks, domain, rows, files))
    if flags.wandb != "disabled":
        to_wandb(flags, out, networks, results)
    del lock
    return results


def begun(out: Path) -> RunLock:
    """Take a folder for the evaluation, before the hours that it may last.

    Raises:
        UsageError: it cannot be written, or another process writes to it.
    """
    from experiments.study.run_lock import locked

    try:
        return locked(out)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror or error}): choose another.") from error


def smoked(flags: Flags) -> Flags:
    """The flags of a few seconds' run; parts and the like stay."""
    changed = {"data": "shapes", "images": 4, "workers": 0, "frames": 3, "severities": [1, 5], "published": False}
    out = f"{flags.out}-smoke" if flags.out == Flags(smoke=True).out else flags.out
    networks = flags.networks or ["cifar_resnet8"]
    return dataclasses.replace(flags, networks=networks, weights="none", out=out, wandb=smoke_wandb(flags), **changed)


def gathered(flags: Flags) -> tuple[list[Network], ImageDomain]:
    """The networks, in the order they were asked for, and the images to evaluate them on.

    Raises:
        UsageError: one of them cannot be had, or the networks were trained on different sets and --data is not given.
    """
    from datamodules.classification.joined import unlike_classes
    from experiments.tasks.evaluated_networks import classifiers, is_path, named_network, told_apart

    trained = {given: classifiers(given) for given in flags.networks if is_path(given)}
    sets = {network.trained_on: network for found in trained.values() for network in found if network.trained_on}
    if len(sets) > 1 and flags.data is None:
        said = ", ".join(f"{network.source} on {data}" for data, network in sets.items())
        raise UsageError(
            f"the networks were trained on different sets ({said}): say by --data which to evaluate them on."
        )
    data = flags.data or next(iter(sets), "imagenet")
    refuse_seen(data, [network for found in trained.values() for network in found])
    sizes = {n.evaluated.resize or n.evaluated.size for found in trained.values() for n in found} or {32}
    domain = opened(flags, data, max(sizes))
    networks = []
    for given in flags.networks:
        networks += trained.get(given) or [named_network(given, flags.weights == "imagenet", domain)]
    orders = {network.evaluated.classes for network in networks}
    if len(orders) == 1 and not unlike_classes(domain.classes, *orders):  # one set's classes may be listed in any order
        domain = domain.in_order_of(*orders, networks[0].source)
    return told_apart(networks), domain


def refuse_seen(data: str, networks: list[Network]) -> None:
    """A network that learned all images of a domain has none there to be evaluated on."""
    from experiments.study.trained.networks import learned_whole

    for network in networks:
        learned = learned_whole(network.trained_on or "", data)
        if learned:
            raise UsageError(
                f"{network.source} has learned all images of {', '.join(learned)}: "
                "say by --data what else to evaluate it on, such as another domain, NAME:all."
            )


def opened(flags: Flags, data: str, size: int) -> ImageDomain:
    """The images to evaluate on; an embedded set is drawn at the size that the networks cut their crops from."""
    from datamodules.classification.domains import open_images
    from datamodules.image_files import DataError, MissingDataError

    try:
        domain = open_images(data, flags.split, flags.data_root, size=size, length=flags.images or OFFERED)
    except MissingDataError as error:
        raise UsageError(f"{str(error).rstrip('.')}; --data shapes needs nothing on disk.") from error
    except DataError as error:
        raise UsageError(f"--data {data}: {error}") from error
    if domain.of_videos:
        raise UsageError(
            f"--data {data} holds videos: --data imagenet --published evaluates on them, among other files."
        )
    return domain


class PublishedFiles:
    """Opens ImageNet-C's and -P's own files by name, and remembers what they hold."""

    def __init__(self, flags: Flags):
        self.flags, self.labels = flags, {}

    def __call__(self, name: str):
        """The samples of "imagenet-c/fog/3" or "imagenet-p/tilt"."""
        from datamodules.classification.domains import open_images

        samples = open_images(name, self.flags.split, self.flags.data_root).samples
        self.labels[name] = samples.labels
        return samples


def check_fit(flags: Flags, networks: list[Network], domain: ImageDomain) -> None:
    """Whether the networks can be evaluated on these images, and as the flags say."""
    from datamodules.classification.joined import unlike_classes

    sizes = {network.evaluated.resize or network.evaluated.size for network in networks}
    if len(sizes) > 1 and not domain.on_disk:
        said = ", ".join(f"{n.arm} {n.evaluated.resize or n.evaluated.size}" for n in networks)
        raise UsageError(
            f"{domain.name} is drawn at one size, and the networks want several ({said}): evaluate them apart."
        )
    for network in networks:
        unlike = unlike_classes(network.evaluated.classes, domain.classes)
        if unlike:
            raise UsageError(
                f"{network.source} knows {unlike} of {domain.name}: "
                f"evaluate it on the set it was trained on, --data {network.trained_on or 'SET'}."
            )
        if network.evaluated.classes != domain.classes:
            raise UsageError(f"{network.source} lists {domain.name}'s classes in another order: evaluate it by itself.")
        if flags.published and (domain.name != "imagenet" or network.evaluated.size != 224):
            raise UsageError(
                "--published: the files are ImageNet's at 224 x 224, but "
                f"{network.source} is evaluated on {domain.name} at {network.evaluated.size}: leave --published out."
            )


def closing_table(
    flags: Flags, networks: list[Network], domain: ImageDomain, rows: list[dict], files: PublishedFiles | None = None
) -> Table:
    """A row an arm, a column a measure, mean and spread over the seeds.

    Args:
        files: what was evaluated in place of corruptions generated here; None: these, which get no mCE and no mFR.
    """
    import pandas as pd

    from experiments.study.chance import compared_in_nothing
    from experiments.study.tables import table_of
    from lightning_modules.robustness.summary import compares_with_alexnet, summary
    from lightning_modules.robustness.views import spread

    def chosen(labels):
        return labels[spread(labels, flags.images or len(labels))]

    images = chosen(domain.samples.labels)
    theirs = [chosen(labels) for labels in files.labels.values()] if files else []
    lines = {}
    for network in networks:
        own = [row for row in rows if row["network"] == network.evaluated.name]
        alexnet = bool(theirs) and all(compares_with_alexnet(network.evaluated, labels) for labels in (images, *theirs))
        lines[network.arm, network.seed] = summary(own, alexnet)
    columns = list(dict.fromkeys(measure for line in lines.values() for measure in line))
    scores = pd.DataFrame(list(lines.values()), pd.MultiIndex.from_tuples(lines), columns).drop(
        columns=HIDDEN & {*columns}
    )
    for plain, normalised in (("mean error, corrupted", "mCE"), ("flip probability", "mFR")):
        if normalised in scores and scores[normalised].notna().all():
            scores = scores.drop(columns=plain)
    smaller = frozenset(scores) & frozenset(SMALLER)
    digits = {column: 2 for column in scores if column == "top-5 distance"}
    text = legend(flags, domain, len(images), list(scores), {len(labels) for labels in theirs})
    table = table_of(scores, text, corner="network", smaller=smaller, digits=digits)
    return compared_in_nothing(table, *at_chance(networks, rows), losses=FLIPS & {*scores})


FLIPS = {"flip probability", "mFR", "top-5 distance"}
"""Columns in which a network that always says the same is perfect."""


def at_chance(networks: list[Network], rows: list[dict]) -> tuple[list[str], float]:
    """The arms whose clean top-1 is no better than guessing under any seed, and what guessing is worth."""
    from experiments.study.chance import LUCK

    clean = {row["network"]: row["value"] for row in rows if (row["part"], row["measure"]) == ("clean", "top1")}
    guess = {network.evaluated.name: 1 / len(network.evaluated.classes) for network in networks}
    learned = {n.arm for n in networks if clean.get(n.evaluated.name, 1) > LUCK * guess[n.evaluated.name]}
    return [arm for arm in dict.fromkeys(n.arm for n in networks) if arm not in learned], max(guess.values())


def legend(flags: Flags, domain: ImageDomain, images: int, columns: list[str], files: Collection[int] = ()) -> str:
    """How to read the table; `files` are the numbers of published files evaluated in one condition."""
    but = " but for the top-5 distance" if "top-5 distance" in columns else ""
    notes = [f"{images} images of {domain.name} ({flags.split}); per cent{but}" + "{spread}."]
    made = "ImageNet-C's and -P's own files" if files else "generated here"
    panes = "" if files else ", frost from photographs" if flags.frost else ", frost painted"
    some = f" ({min(files)} to {max(files)} in a condition)" if {*files} - {images} else ""
    severities = "" if len(flags.severities) == 5 else f" at severity {', '.join(map(str, sorted(flags.severities)))}"
    if {"mean error, corrupted", "mCE"} & {*columns}:
        notes.append(f" Corruptions are {made}{some}{severities}{panes}.")
    if {"flip probability", "mFR"} & {*columns}:
        notes.append(f" Perturbations are {made}{some}.")
    if "mCE" in columns:
        notes.append(" mCE and relative mCE: AlexNet is 100.")
    if "mFR" in columns:
        notes.append(" mFR: AlexNet is 100, by second-hand figures of AlexNet that are unverified.")
    return "".join(notes)


def write(flags: Flags, out: Path, results: DataFrame, table: Table) -> None:
    """Leave the evaluation in its folder, and print the table."""
    import yaml

    from experiments.reporting.arm_styles import arm_styles
    from experiments.reporting.robustness_figures import draw_robustness

    write_whole(out / "table.md", table.markdown() + "\n")
    write_whole(out / "table.json", table.to_json() + "\n")
    config = dataclasses.asdict(flags) | {"command": shlex.join(["python", *sys.argv])}
    write_whole(out / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_whole(out / "results.csv", partial(results.to_csv, index=False))  # last: it says that there is an evaluation
    columns = results.drop_duplicates("arm").set_index("arm")[["norm", "backbone", "antialias"]]
    styles = arm_styles(columns.to_dict("index")).styles
    figure = draw_robustness(results, styles)
    for suffix in ("png", "svg"):
        write_whole(out / f"robustness.{suffix}", partial(figure.savefig, format=suffix, dpi=150))
    table.print()
    print(f"table, results and picture: {out}")


def to_wandb(flags: Flags, out: Path, networks: list[Network], results: DataFrame) -> None:
    """A run for each network, with its results and the numbers that studies log of what they `--evaluate`."""
    from experiments.study.trained.network_outcome import log_network

    settings = {"images": flags.images, "split": flags.split}
    for network in networks:
        own = results[(results["arm"] == network.arm) & (results["seed"] == network.seed)]
        about = {"arm": network.arm, **network.columns, "seed": network.seed, "network": network.source}
        log_network(flags.wandb, out, about | settings, own)


if __name__ == "__main__":
    main()
