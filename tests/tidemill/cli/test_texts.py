"""Options that are not UTF-8 are refused by name; paths may be any bytes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tidemill.cli.main import app
from tidemill.errors import InputError, UsageError
from tidemill.terminal import printable


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("run", "in", "--model", "m\udce9"), "model"),
        (("run", "in", "--system", "m\udce9"), "system"),
        (("run", "in", "--stop", "a", "--stop", "m\udce9"), "stop"),
        (("submit", "in", "--column", "m\udce9"), "column"),
        (("run", "in", "--answer-column", "m\udce9"), "answer-column"),
        (("list", "--api-key", "m\udce9"), "api-key"),
        (("status", "m\udce9"), "batch-id"),
        (("models", "add", "m\udce9", "folder"), "name"),
        (("models", "add", "name", "m\udce9"), "path"),
    ],
)
def test_a_text_that_is_not_utf8_is_refused_by_name(
    arguments: tuple[str, ...], option: str
) -> None:
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, UsageError)
    assert str(error) == f"The value of {option} is not UTF-8 text: m\ufffd"


def test_a_path_is_not_asked_to_be_text(tmp_path: Path) -> None:
    error = CliRunner().invoke(app, ("run", f"{tmp_path}/caf\udce9.txt")).exception
    assert isinstance(error, InputError)
    told = f"{tmp_path}/caf\\xe9.txt cannot be read: No such file or directory."
    assert printable(str(error)) == told
