"""What a user is told when data are not in order: one line with path and reason, whatever the error's text is."""

import pytest
from torch.utils.data import DataLoader, Dataset

from datamodules.image_files import DataError
from experiments.study.endings import UsageError, message_of, one_sentence


class Refusing(Dataset):
    def __init__(self, text):
        self.text = text

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise OSError("first cause\n.")
        except OSError as error:
            raise DataError(self.text) from error


def last_line(capsys, raising):
    with pytest.raises(SystemExit) as left, one_sentence():
        raising()
    assert left.value.code == 2
    return capsys.readouterr().err


def raised(error):
    raise error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/a/b.jpg is cut short.", "/a/b.jpg is cut short."),
        ("/a/line\nbreak.jpg cannot be read: no.", "/a/line\\nbreak.jpg cannot be read: no."),
        ("/a/b.jpg cannot be read: OpenCV(5) error: (-215)\n.", "/a/b.jpg cannot be read: OpenCV(5) error: (-215)\\n."),
        ("/a/\udcff\x1b[2J.jpg is empty.", "/a/\\udcff\\x1b[2J.jpg is empty."),
        ("/a/b: Error: c.jpg is empty.", "/a/b: Error: c.jpg is empty."),
    ],
)
def test_path_and_reason_come_through(text, shown, capsys):
    assert last_line(capsys, lambda: raised(DataError(text))) == f"error: {shown}\n"
    assert last_line(capsys, lambda: raised(UsageError(text))) == f"error: {shown}\n"
    assert last_line(capsys, lambda: next(iter(DataLoader(Refusing(text), num_workers=1)))) == f"error: {shown}\n"


@pytest.mark.parametrize("text", ["", "\n", "Caught DataError in DataLoader worker process 0.\nOriginal Traceback"])
def test_there_is_always_a_sentence(text, capsys):
    assert len(last_line(capsys, lambda: raised(DataError(text)))) > len("error: .\n")


def test_other_errors_are_ours_to_mend():
    with pytest.raises(ZeroDivisionError), one_sentence():
        raise ZeroDivisionError
    assert message_of(DataError("whole.")) == "whole."
