"""What studies say of command lines that cannot be done."""

import pytest

from experiments.study.endings import one_sentence
from experiments.study.flags import parse


def refused(study, capsys, line: str) -> str:
    """The one sentence that a command line of a study, given as its module, ends in."""
    with pytest.raises(SystemExit) as stopped, one_sentence():
        study.run(parse(study.Flags, "", line.split()))
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and "Traceback" not in error
    return error
