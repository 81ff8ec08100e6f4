"""Which norm survives the drive from one city to another?

IBN-Net (Pan, Luo, Shi, Tang, ECCV 2018): instance norm in the shallow layers beside batch norm keeps accuracy at home
and loses less abroad. From GTA5 to Cityscapes a dilated ResNet-50 rises from 22.2 to 29.6 mIoU with IBN-b (reported
second-hand, unverified); in RobustNet's protocol (Choi et al., CVPR 2021; ResNet-101, output stride 8) from 30.06 to
33.63 with IBN.

Eight GPUs, with data/gta5 and data/cityscapes on disk (not run here):

    python experiments/seg_gta2city.py --gpus 8 --weights imagenet --norm bn ibn-a ibn-b sn bin --sync-norm

in RobustNet's protocol (docs/robustnet.md), ResNet-50; --recipe robustnet-r101 is its ResNet-101.

A laptop, nothing on disk (the embedded street scenes):

    python experiments/seg_gta2city.py --source streets-game --target streets-city streets-night streets-fog

Three seeds of five norms, without colour augmentation, took 64 minutes on one of two cores; the drop to the mean of
targets was 17.9 +- 0.7 points under bn, 17.7 +- 1.1 ibn-a, 12.4 +- 0.5 ibn-b, 13.2 +- 2.3 sn and 17.4 +- 0.9 bin.

Trains a network for each norm and seed on the source, judges it on the source and on every target, and ends in one
table: mIoU on each, the drop, mean and spread over the seeds. Everything lands in OUT: table.md, report.html,
results.csv, metrics.csv, gates.parquet, divergence.csv, checkpoints and examples.
"""

import dataclasses
import time
from dataclasses import dataclass, field

from experiments.flags import RunFlags, UsageError, check_weights, flag, one_sentence, out_folder, parse, smoke_wandb

QUESTION = (
    "A segmentation network learns one street domain and is judged on others. "
    "Which norm loses least on the way, and what did its layers learn?"
)
MEASURES = ("miou", "iou/*", "chance", "drop", "divergence")
ON_STREETS = "python experiments/seg_gta2city.py --source streets-game --target streets-city streets-night streets-fog"


@dataclass
class Flags(RunFlags):
    """Flags of this study."""

    source: str = "gta5"
    """Domain to train on, of gta5 cityscapes bdd100k bdd100k-drivable synthia mapillary camvid streets-game
    streets-city streets-night streets-fog."""
    target: list[str] = field(default_factory=lambda: ["cityscapes"])
    """Domains to be judged on besides the source; NAME:SPLIT judges on another split than val."""
    norm: list[str] = field(default_factory=lambda: ["bn", "ibn-a", "ibn-b", "sn", "bin"])
    """Norms to compare, of bn syncbn in ln gn sn sn-in-ln bin ibn-a ibn-b."""
    norm_in: str = "both"
    """Which half gets the norm: encoder, decoder or both (IBN-Net's always go into the encoder)."""
    sync_norm: bool = False
    """Take batch statistics over all processes, in bn, sn, bin and IBN's bn half alike."""
    recipe: str = "auto"
    """robustnet (ResNet-50, output stride 16), robustnet-r101 (ResNet-101, 8), or laptop for the embedded streets; the
    flags below override parts of it."""
    arch: str | None = None
    """Architecture: robustnet, which is RobustNet's DeepLabV3+, or one of segmentation-models-pytorch's by its name
    there, such as deeplabv3plus."""
    backbone: str | None = None
    """Encoder, by timm's name, also with a tag: resnet50.tv_in1k."""
    weights: str = "none"
    """Encoder weights to start from: none, imagenet (timm downloads the backbone's) or a checkpoint file, also the
    papers'; RobustNet's own files bring the whole network."""
    lr: float | None = None
    """Base learning rate, which the warm-up rises to and the polynomial decay falls from."""
    height: int | None = None
    """Height that every image is resized to first, 0 for none; labels are taken at the new pixels' centres."""
    crop: tuple[int, int] | None = None
    """Height and width of the training crops."""
    evaluation: str | None = None
    """Judge whole images at once (whole) or by windows of the crop's size (sliding)."""
    augment_colour: bool = flag(default=True, negative_prefix="--no-")
    """Jitter colours and blur in training."""
    class_uniform: float | None = None
    """Share of the training crops that are aimed at a class drawn uniformly."""
    scenes: int | None = None
    """Scenes that an embedded domain is judged on."""

    def __post_init__(self):
        super().__post_init__()
        self.norm = list(dict.fromkeys(self.norm))
        if not self.norm:
            raise UsageError("--norm: name one norm or more, such as --norm bn ibn-a sn.")
        if self.crop is not None and any(side % 32 for side in self.crop):
            raise UsageError(f"--crop {self.crop[0]} {self.crop[1]}: the sides must be multiples of 32.")
        if self.height is not None and self.height != 0 and self.height < 32:
            raise UsageError(f"--height {self.height}: it must be 32 or more, or 0 for none.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags):
    """Train and judge every norm and seed; returns the results, a row for each norm, seed, domain and measure."""
    from datamodules.image_files import MissingDataError  # after parsing: --help must not wait for it
    from datamodules.segmentation import SegmentationData
    from experiments.domain_drop import drop_table
    from experiments.run_folder import RunFolder
    from experiments.train_arms import train_arms
    from experiments.trainers import devices, loader_workers
    from lightning_modules.predictions import colours_in_hex

    started = time.time()
    check_names(flags)
    world = devices(flags)[1] * flags.nodes
    flags = smoked(flags, world) if flags.smoke else flags
    recipe = chosen_recipe(flags)
    if recipe.batch_size % world:
        raise UsageError(
            f"--batch-size {recipe.batch_size} cannot be shared by {world} processes: pass a multiple of {world}."
        )
    try:
        data = SegmentationData(
            flags.source,
            flags.target,
            flags.data_root,
            crop=recipe.crop,
            height=recipe.height,
            batch_size=recipe.batch_size // world,
            workers=loader_workers(flags),
            augment_colour=flags.augment_colour,
            class_uniform=recipe.class_uniform,
            augmentation=recipe.augmentation,
            squares=dict(recipe.squares),
            judged_scenes=flags.scenes,
        )
    except MissingDataError as error:
        raise UsageError(f"{str(error).rstrip('.')}; without data on disk, run: {ON_STREETS}") from error
    few = next((domain for domain in data.judged if len(domain.samples) < world), None)
    if few:
        raise UsageError(f"{few.name} has {len(few.samples)} images to judge on, fewer than the {world} processes.")
    recipe = with_epochs(recipe, flags, len(data.source.samples))
    check_norms(flags, recipe, data, world)
    out, fresh = out_folder(flags, "seg_gta2city"), flags.smoke and "NAME" in flags.out
    arms = {norm: {"norm": norm} for norm in flags.norm}
    about = {"colours": colours_in_hex(data.source.label_space)}
    folder = RunFolder(out, flags, QUESTION, about, arms, fresh=fresh, headline="miou", measures=MEASURES)
    data.read_labels()

    def train(norm: str, seed: int) -> None:
        train_and_judge(flags, recipe, data, folder, norm, seed)

    return train_arms(folder, train, drop_table, started)


def train_and_judge(flags: Flags, recipe, data, folder, norm: str, seed: int) -> None:
    """One network: train it, judge it, and leave its part of the run in the folder."""
    from experiments.trainers import devices, end_wandb, forget_progress, make_trainer, train
    from experiments.wandb_outcome import log_outcome
    from lightning_modules.examples import save_examples
    from lightning_modules.gate_tracker import GateTracker
    from lightning_modules.halves_tracker import HalvesTracker
    from lightning_modules.layer_log import hide, wandb_runs
    from lightning_modules.predictions import segmentation_examples

    part = folder.part(norm, seed)
    module = build(flags, recipe, data, norm)
    about = {"norm": norm, "seed": seed, "source": flags.source, "target": flags.target} | dataclasses.asdict(recipe)
    about["images_together"] = recipe.batch_size // (1 if flags.sync_norm else devices(flags)[1] * flags.nodes)
    trackers = [GateTracker(part, {"norm": norm, "seed": seed}), HalvesTracker()]
    trainer = make_trainer(flags, part, recipe, trackers, about)
    for run in wandb_runs(trainer):  # dozens of panels; the table of results holds them as well
        for domain in data.judged:
            for name in domain.label_space.classes:
                hide(run, f"{domain.name}/iou/{name}")
    train(trainer, module, data, flags.resume)
    if trainer.is_global_zero:
        module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
        seen, results, apart = segmentation_examples(module, data), module.results(), divergence(module, data)
        save_examples(seen, folder.path / "examples", norm)
        folder.finish(norm, seed, {"results": results, "divergence": apart})
        log_outcome(trainer, results, seen, apart)
        forget_progress(trainer)
        end_wandb(trainer)


def build(flags: Flags, recipe, data, norm: str):
    """The network under one norm, ready to train."""
    from lightning_modules.segmentation import SegmentationModule

    sync = flags.sync_norm
    return SegmentationModule(recipe, norm, data.judged, norm_in=flags.norm_in, weights=flags.weights, sync_norm=sync)


def check_names(flags: Flags) -> None:
    """What can be told from the flags alone."""
    from normshift.registry import norm_spec

    try:
        for norm in flags.norm:
            norm_spec(norm)
    except ValueError as error:
        raise UsageError(f"--norm: {error}") from error
    check_weights(flags.weights)


def check_norms(flags: Flags, recipe, data, world: int) -> None:
    """Build every network once before the first is trained: what cannot be built must not stop a run half-way."""
    import torch

    from experiments.trainers import devices

    if "syncbn" in flags.norm and devices(flags)[0] == "cpu" and world > 1:
        raise UsageError("--norm syncbn: torch's own needs GPUs to synchronise; on CPUs, pass --norm bn --sync-norm.")
    batch_normed = {"bn", "ibn-a", "ibn-b"} & set(flags.norm)
    if recipe.batch_size == world and batch_normed and not (flags.sync_norm and world > 1):
        raise UsageError(
            f"--batch-size {recipe.batch_size} leaves each process one image, which batch norm cannot train on: "
            "raise it, pass --sync-norm, or leave out " + ", ".join(sorted(batch_normed)) + "."
        )
    with torch.random.fork_rng(devices=[]):
        for norm in flags.norm:
            try:
                build(flags, recipe, data, norm)
            except ValueError as error:
                raise UsageError(str(error)) from error


def chosen_recipe(flags: Flags):
    """The recipe that the flags name, with the parts that they override."""
    from lightning_modules.segmentation_recipes import SEGMENTATION_RECIPES

    name = flags.recipe
    if name == "auto":
        name = "laptop" if flags.source.startswith("streets-") else "robustnet"
    if name not in SEGMENTATION_RECIPES:
        raise UsageError(f"--recipe {name}: choose from auto, {', '.join(SEGMENTATION_RECIPES)}.")
    recipe = SEGMENTATION_RECIPES[name]
    parts = {f.name for f in dataclasses.fields(recipe)} & {f.name for f in dataclasses.fields(flags)}
    given = {part: getattr(flags, part) for part in parts if getattr(flags, part) is not None}
    if given.get("height") == 0:
        given["height"] = None
    if given.get("evaluation", "whole") not in ("whole", "sliding"):
        raise UsageError(f"--evaluation {flags.evaluation}: choose whole or sliding.")
    return dataclasses.replace(recipe, **given)


def with_epochs(recipe, flags: Flags, images: int):
    """The recipe with its epochs fitted to the source: one is a pass at most, and judging keeps its pace in steps."""
    whole_pass = images // recipe.batch_size
    if not whole_pass:
        raise UsageError(
            f"{flags.source} has {images} images to train on, fewer than the {recipe.batch_size} of one step."
        )
    meant = recipe.epoch_steps or whole_pass
    steps = min(meant, whole_pass)
    max_steps = steps * flags.epochs if flags.epochs else recipe.max_steps
    judge_epochs = recipe.judge_epochs * (meant // steps)
    return dataclasses.replace(recipe, epoch_steps=steps, judge_epochs=judge_epochs, max_steps=max_steps)


def smoked(flags: Flags, world: int) -> Flags:
    """The flags of a few seconds' run on the embedded streets; norms, architecture and the like stay."""
    return dataclasses.replace(
        flags,
        source="streets-game",
        target=["streets-night"],
        recipe="smoke",
        batch_size=min(flags.batch_size or 2 * world, 8 * world),
        scenes=4 * world,
        workers=0,
        wandb=smoke_wandb(flags),
    )


def divergence(module, data) -> list[dict]:
    """Feature divergence between the source and each target, layer by layer, on the first images of each."""
    from normshift import feature_divergence

    weights = next(module.parameters())
    source, *targets = (
        [images.to(weights) for images in first_images(data.judged_loader(domain), 16)] for domain in data.judged
    )
    rows = []
    for domain, batches in zip(data.judged[1:], targets, strict=True):
        for layer in feature_divergence(module, source, batches):
            width = len(layer.per_channel)
            rows.append(
                {"domain": domain.name, "layer": layer.layer, "depth": layer.depth, "channels": width}
                | {"mean": layer.mean, "total": layer.total}
            )
    return rows


def first_images(loader, count: int):
    """Batches from a loader until they hold `count` images."""
    for images, _ in loader:
        yield images[:count]
        count -= len(images)
        if count <= 0:
            return


if __name__ == "__main__":
    main()
