"""With which norm does a classifier learn several domains at once, and with which does it generalize to an unseen one?

Batch-Instance Normalization (Nam and Kim, NeurIPS 2018), one ResNet-18 on all four domains of Office-Home at once,
top-1 on Art/Clipart/Product/Real/mean: BN 70.04/76.93/88.47/80.38/78.95, BIN 72.23/77.27/89.12/81.68/80.08. With DANN
(Ganin et al., JMLR 2016) from one domain to another, BIN is equal or better on 11 of 12 transfers.

One GPU, with data/office-home on disk (not run here):

    python experiments/cls_office_home.py --data office-home --gpus 1 --weights imagenet --norm bn bin --seeds 3
    python experiments/cls_office_home.py --data office-home --gpus 1 --weights imagenet --setting leave-one-out
    python experiments/cls_office_home.py --data office-home --gpus 1 --weights imagenet --setting transfer --adapt dann

The protocols of two libraries, to compare with the numbers that they publish (comments of the recipes say what
differs):

    python experiments/cls_office_home.py --data office-home --gpus 1 --weights imagenet --setting transfer \\
        --adapt dann --recipe tll-dann
    python experiments/cls_office_home.py --data pacs --gpus 1 --weights imagenet --setting leave-one-out \\
        --recipe domainbed-erm --seeds 3

Transfer-Learning-Library reports a mean over Office-Home's twelve transfers of 65.2 with DANN and 58.4 without
adaptation (tll-erm), each at the epoch that is best on the target's labels. DomainBed reports for ERM 85.5 on PACS and
66.5 on Office-Home, with the step chosen on held-out images of the training domains.

A laptop, with no data on disk (the embedded shapes in their four styles):

    python experiments/cls_office_home.py --norm bn bin --seeds 3

Three seeds took 7 minutes on one of two busy cores. Mean over the styles: bn 94.6 +- 1.0, bin 97.4 +- 0.2.

Settings: mixed trains on all domains at once and evaluates on held-out images of each. leave-one-out trains on all
domains but one and evaluates on that one. transfer trains on one domain and evaluates on another, for every pair (or
those of --source and --target); with --adapt dann, training also uses the target's images, without their labels.

The closing table gives top-1, with a row for each norm, a column for each domain or pair, and their mean.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING

from experiments.study.endings import UsageError, one_sentence
from experiments.study.flags import parse
from experiments.study.tables.table import Table, table_of
from experiments.tasks.classification_flags import ClassificationFlags, chosen_recipe, smoked
from experiments.tasks.classification_tables import accuracies

if TYPE_CHECKING:
    from pandas import DataFrame

    from lightning_modules.classification.recipes import ClassificationRecipe

ADVERSARIAL_LR = 0.1
"""Learning rate of DANN under the recipe laptop, at whose own rate of 0.3 batch norm diverges within 120 steps."""
QUESTION = "Several domains at once, an unseen domain, or transfer from one domain to another: which norm is best?"


@dataclass
class Flags(ClassificationFlags):
    """Flags of this study."""

    norm: list[str] = field(default_factory=lambda: ["bn", "bin"])
    """Norms to compare, of NORMS."""
    setting: str = "mixed"
    """Which domains are trained and evaluated on: mixed, leave-one-out or transfer (see above)."""
    adapt: str = "none"
    """Domain adaptation in the setting transfer: none or dann, domain-adversarial training."""
    source: list[str] = field(default_factory=list)
    """Domains to transfer from, such as Art or photo; by default each in turn."""
    target: list[str] = field(default_factory=list)
    """Domains to transfer to, or to leave out of the training; by default each in turn."""

    def __post_init__(self):
        super().__post_init__()
        if self.setting not in ("mixed", "leave-one-out", "transfer"):
            raise UsageError(f"--setting {self.setting}: choose mixed, leave-one-out or transfer.")
        if self.adapt not in ("none", "dann"):
            raise UsageError(f"--adapt {self.adapt}: choose none or dann.")
        if self.adapt == "dann" and self.setting != "transfer":
            raise UsageError("--adapt dann adapts to one target: it goes with --setting transfer.")
        if self.source and self.setting != "transfer":
            raise UsageError("--source names the domain to transfer from: it goes with --setting transfer.")
        if self.target and self.setting == "mixed":
            raise UsageError("--target: the setting mixed trains and evaluates on every domain; leave it out.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags):
    """Train and evaluate every norm, pair and seed; returns the results."""
    from datamodules.classification.domains import domains_of, is_folder  # imports torch: --help must not wait for it
    from experiments.tasks.classification import Arm, run_arms  # imports torch: --help must not wait for it

    if "/" in flags.data and not is_folder(flags.data):
        raise UsageError(f"--data {flags.data}: name the whole set; --source and --target choose its domains.")
    flags = smoked(flags, source=[], target=["sketch"] if flags.setting != "mixed" else []) if flags.smoke else flags
    recipe = chosen_recipe(flags, default_recipe(flags))
    if used_recipe(flags) == "laptop" and flags.adapt == "dann" and flags.lr is None:
        recipe = dataclasses.replace(recipe, lr=ADVERSARIAL_LR)
    domains = domains_of(flags.data, flags.data_root)
    if len(domains) < 2:
        raise UsageError(f"--data {flags.data} has only one domain, {domains[0]}: this study needs two or more.")
    for flag, names in (("--source", flags.source), ("--target", flags.target)):
        for name in names:
            if name not in map(short, domains):
                raise UsageError(f"{flag} {name}: {flags.data} has {', '.join(map(short, domains))}.")
    arms = {}
    for norm in flags.norm:
        for name, parts in ARMS[flags.setting](flags, domains, recipe).items():
            columns = {"norm": norm, "setting": flags.setting, "adapt": flags.adapt, "case": name}
            columns["recipe"] = used_recipe(flags)
            arm = Arm(recipe=recipe, norm=norm, columns=columns, by_trial=True, **parts)
            arms["-".join(part for part in (norm, name) if part)] = arm
    free = ("norm", "source", "target")
    return run_arms(flags, "cls_office_home", QUESTION, arms, table, arm_flags=free)


def used_recipe(flags: Flags) -> str:
    """The name of the recipe that the flags choose."""
    if flags.recipe != "auto":
        return flags.recipe
    return "laptop" if flags.on_shapes else default_recipe(flags)


def default_recipe(flags: Flags) -> str:
    return "dann" if flags.adapt == "dann" else "office-home"


def mixed(flags: Flags, domains: tuple[str, ...], recipe: ClassificationRecipe) -> dict[str, dict]:
    """Train on all domains at once, and evaluate on the held-out images of each."""
    train = flags.data if flags.on_shapes else "+".join(domains)  # those on disk
    return {"": {"train": train, "evaluated": domains}}


def leave_one_out(flags: Flags, domains: tuple[str, ...], recipe: ClassificationRecipe) -> dict[str, dict]:
    """Train on all domains but one, and evaluate on all images of that one.

    DomainBed's recipe splits every domain in two by the trial's seed, trains on the larger parts, and evaluates on the
    larger part of the domain left out. The embedded shapes, of which any number can be drawn, keep their own splits. If
    the network is selected on the training domains, it is also evaluated on their held-out parts.
    """
    by_trial = recipe.from_each and not flags.on_shapes
    learned, held, seen = (":in0", ":out0", ":in0") if by_trial else ("", "", "" if flags.on_shapes else ":all")
    cases = {}
    for left in chosen(flags.target, domains):
        rest = [name for name in domains if name != left]
        held_out = tuple(name + held for name in rest) if recipe.selection == "training-domains" else ()
        train = "+".join(name + learned for name in rest)
        cases[f"without-{short(left)}"] = {
            "train": train, "evaluated": (left + seen, *held_out), "held_out": held_out,
        }  # fmt: skip
    return cases


def transfer(flags: Flags, domains: tuple[str, ...], recipe: ClassificationRecipe) -> dict[str, dict]:
    """Train on all images of one domain, and evaluate on all images of another; DANN also trains on the latter, without
    their labels."""
    pairs = [
        (source, target)
        for source, target in permutations(domains, 2)
        if source in chosen(flags.source, domains) and target in chosen(flags.target, domains)
    ]
    if not pairs:
        raise UsageError("--source and --target name the same single domain: name two different ones.")
    cases = {}
    for source, target in pairs:
        adapt_to = whole(target) if flags.adapt == "dann" else None
        case = {"train": whole(source), "evaluated": (whole(target),), "adapt_to": adapt_to}
        cases[f"{short(source)}-to-{short(target)}"] = case
    return cases


ARMS = {"mixed": mixed, "leave-one-out": leave_one_out, "transfer": transfer}


def short(domain: str) -> str:
    """A domain's own name, without its set's and without spaces, for folders and headings."""
    return domain.rpartition("/")[2].partition(":")[0].replace(" ", "_")


def whole(domain: str) -> str:
    """All images of a domain. Shapes, of which any number can be drawn, keep the split that is asked for."""
    return domain if domain.startswith("shapes") else f"{domain}:all"


def chosen(names: list[str], domains: tuple[str, ...]) -> list[str]:
    """The domains that a flag names by their own names; all where it names none."""
    return [domain for domain in domains if not names or short(domain) in names]


def table(results: DataFrame):
    """Top-1, with a row for each norm, a column for each domain or pair, and the mean."""
    aside = results["setting"].eq("leave-one-out") & results["case"].ne("without-" + results["domain"].map(short))
    results = results[~aside]  # held-out images of the training domains only select the network
    transfers = results["setting"] == "transfer"
    columns = results["case"].where(transfers, results["domain"].map(short))
    scores = accuracies(results.assign(column=columns), rows="norm", columns="column")
    scores["mean"] = scores.mean(axis=1, skipna=False)
    recipe = results["recipe"].iloc[0]
    closing = table_of(scores, f"top-1 accuracy in percent, recipe {recipe}; mean: over the columns.")
    return with_standard_error(closing) if recipe.startswith("domainbed-") else closing


def with_standard_error(table: Table) -> Table:
    """The table with DomainBed's standard error: the standard deviation (divisor n) over the square root of n."""
    cells = table.cells.copy()
    for column in table.columns:
        count = cells[column, "n"]
        cells[column, "sd"] *= (count - 1) ** 0.5 / count
    legend = table.legend.replace("standard deviation over seeds", "standard error over the seeds' trials")
    return dataclasses.replace(table, cells=cells, legend=legend)


if __name__ == "__main__":
    main()
