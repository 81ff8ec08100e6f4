"""Which norm sees where a noisy square is brighter? The script of the toy task."""

from dataclasses import dataclass, field

from experiments.study.endings import one_sentence
from experiments.study.flags import RunFlags, parse


@dataclass
class Flags(RunFlags):
    """Flags of this study."""

    norm: list[str] = field(default_factory=lambda: ["sn", "bn"])
    """Norms to compare, of NORMS."""
    lrs: list[float] = field(default_factory=lambda: [0.1])
    """Learning rates to compare."""


def main() -> None:
    with one_sentence():
        run(parse(Flags, __doc__))


def run(flags: Flags):
    """Train and evaluate every norm, rate and seed; returns the results in long form."""
    from experiments.study.loop import run_study  # loads torch: --help must not wait for it
    from experiments.study.settings import resolved
    from experiments.study.task import Arm
    from tests.experiments.study.toy_task import Brightness

    columns = [{"norm": norm, "lr": lr} for norm in flags.norm for lr in flags.lrs]
    arms = [Arm(name=f"{one['norm']}-{one['lr']:g}", columns=one) for one in columns]
    question = "Which norm sees where it is brighter?"
    return run_study(Brightness(), arms, resolved(flags, "toy"), question, arm_flags=("norm", "lrs"))


if __name__ == "__main__":
    main()
