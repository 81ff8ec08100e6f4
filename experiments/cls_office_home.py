"""Which norm learns several domains at once, and which one an unseen domain?

Batch-Instance Normalization (Nam and Kim, NeurIPS 2018), Office-Home, one ResNet-18 on all four domains at once, top-1
on Art/Clipart/Product/Real/mean: BN 70.04/76.93/88.47/80.38/78.95, BIN 72.23/77.27/89.12/81.68/80.08. From one domain
to another under DANN (Ganin et al., JMLR 2016) BIN is level or better on 11 of 12 transfers.

One GPU, with data/office-home on disk (not run here):

    python experiments/cls_office_home.py --data office-home --gpus 1 --weights imagenet --norm bn bin --seeds 3
    python experiments/cls_office_home.py --data office-home --gpus 1 --weights imagenet --setting leave-one-out
    python experiments/cls_office_home.py --data office-home --gpus 1 --weights imagenet --setting transfer --adapt dann

A laptop, nothing on disk (the embedded shapes in their four styles):

    python experiments/cls_office_home.py --norm bn bin --seeds 3

Three seeds took 27 minutes on one of two busy cores: bn 65.9 +- 1.2 in the mean of the styles, bin 83.3 +- 0.3.

Settings: mixed learns all domains at once and is judged on held-out images of each; leave-one-out learns all domains
but one and is judged on that one; transfer learns one domain and is judged on another, for every pair (or --source and
--target), without or with domain-adversarial training, whose network also sees the target's images, not their labels.

Ends in one table: top-1, a row a norm, a column a domain or pair, and their mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING

from experiments.classification_study import (
    Arm,
    ClassificationFlags,
    accuracies,
    chosen_recipe,
    run_arms,
    smoked,
)
from experiments.flags import UsageError, one_sentence, parse

if TYPE_CHECKING:
    from pandas import DataFrame

QUESTION = "Several domains at once, a domain never seen, or one domain in place of another: which norm gets through?"


@dataclass
class Flags(ClassificationFlags):
    """Flags of this study."""

    norm: list[str] = field(default_factory=lambda: ["bn", "bin"])
    """Norms to compare, of bn syncbn in ln gn sn sn-in-ln bin ibn-a ibn-b."""
    setting: str = "mixed"
    """mixed, leave-one-out or transfer."""
    adapt: str = "none"
    """none, or dann: domain-adversarial training towards the target, in the setting transfer."""
    source: list[str] = field(default_factory=list)
    """Domains to transfer from, such as Art or photo; by default each."""
    target: list[str] = field(default_factory=list)
    """Domains to transfer to or to leave out; by default each."""

    def __post_init__(self):
        super().__post_init__()
        if self.setting not in ("mixed", "leave-one-out", "transfer"):
            raise UsageError(f"--setting {self.setting}: choose mixed, leave-one-out or transfer.")
        if self.adapt not in ("none", "dann"):
            raise UsageError(f"--adapt {self.adapt}: choose none or dann.")
        if self.adapt == "dann" and self.setting != "transfer":
            raise UsageError("--adapt dann adapts to one target: it goes with --setting transfer.")
        if self.source and self.setting != "transfer":
            raise UsageError("--source names where a transfer begins: it goes with --setting transfer.")
        if self.target and self.setting == "mixed":
            raise UsageError("--target: in the setting mixed every domain is learned and judged; leave it out.")
        if "/" in self.data:
            raise UsageError(f"--data {self.data}: name the whole set; --source and --target choose its domains.")


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags):
    """Train and judge every norm, pair and seed; returns the results."""
    from datamodules.image_domains import domains_of

    flags = smoked(flags, source=[], target=["sketch"] if flags.setting != "mixed" else []) if flags.smoke else flags
    recipe = chosen_recipe(flags, "dann" if flags.adapt == "dann" else "office-home")
    domains = domains_of(flags.data, flags.data_root)
    if len(domains) < 2:
        raise UsageError(f"--data {flags.data} holds one domain alone, {domains[0]}: there is nothing to compare.")
    for flag, names in (("--source", flags.source), ("--target", flags.target)):
        for name in names:
            if name not in map(short, domains):
                raise UsageError(f"{flag} {name}: {flags.data} has {', '.join(map(short, domains))}.")
    arms = {}
    for norm in flags.norm:
        for name, parts in ARMS[flags.setting](flags, domains).items():
            facts = {"norm": norm, "setting": flags.setting, "adapt": flags.adapt, "case": name}
            arms["-".join(part for part in (norm, name) if part)] = Arm(recipe, norm, facts=facts, **parts)
    return run_arms(flags, "cls_office_home", QUESTION, arms, table, arm_flags=("norm", "source", "target"))


def mixed(flags: Flags, domains: tuple[str, ...]) -> dict[str, dict]:
    """All domains at once; judged on what is held out of each."""
    train = flags.data if flags.on_shapes else "+".join(domains)  # those on disk
    return {"": {"train": train, "judged": domains}}


def leave_one_out(flags: Flags, domains: tuple[str, ...]) -> dict[str, dict]:
    """All domains but one, judged on all images of that one (DomainBed's protocol)."""
    return {
        f"without-{short(left)}": {
            "train": "+".join(name for name in domains if name != left),
            "judged": (whole(left),),
        }
        for left in chosen(flags.target, domains)
    }


def transfer(flags: Flags, domains: tuple[str, ...]) -> dict[str, dict]:
    """All images of one domain, judged on all images of another; DANN also learns from these, without their labels."""
    pairs = [
        (source, target)
        for source, target in permutations(domains, 2)
        if source in chosen(flags.source, domains) and target in chosen(flags.target, domains)
    ]
    if not pairs:
        raise UsageError("--source and --target leave no pair of two domains.")
    cases = {}
    for source, target in pairs:
        adapt_to = whole(target) if flags.adapt == "dann" else None
        case = {"train": whole(source), "judged": (whole(target),), "adapt_to": adapt_to}
        cases[f"{short(source)}-to-{short(target)}"] = case
    return cases


ARMS = {"mixed": mixed, "leave-one-out": leave_one_out, "transfer": transfer}


def short(domain: str) -> str:
    """A domain's own name, without its set's and without spaces, for folders and headings."""
    return domain.rpartition("/")[2].partition(":")[0].replace(" ", "_")


def whole(domain: str) -> str:
    """All images of a domain; of a drawn one, which has no end, those of the split that is asked for."""
    return domain if domain.startswith("shapes") else f"{domain}:all"


def chosen(names: list[str], domains: tuple[str, ...]) -> list[str]:
    """The domains that a flag names by their own names; all where it names none."""
    return [domain for domain in domains if not names or short(domain) in names]


def table(results: DataFrame):
    """Top-1: a row a norm, a column a domain or a pair, and the mean."""
    from experiments.tables import table_of

    transfers = results["setting"] == "transfer"
    columns = results["case"].where(transfers, results["domain"].map(short))
    scores = accuracies(results.assign(column=columns), rows="norm", columns="column")
    scores["mean"] = scores.mean(axis=1, skipna=False)
    return table_of(scores, "top-1 accuracy in percent; mean: over the columns.")


if __name__ == "__main__":
    main()
