"""``tidemill estimate`` as a user meets it, on a whole service in one process; no engine runs."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from storage.settings import Settings
from tidemill.serve.service import Service

pytestmark = pytest.mark.slow

Command = Callable[..., Any]
# Without messages.
REQUEST = '{"custom_id": "%d", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings.load(home=tmp_path_factory.mktemp("home"), port=0, env_file=None)
    # The service's log would go to the same standard output as the command's.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with Service(settings, announce=False) as service:
            yield service.url
    finally:
        structlog.reset_defaults()


@pytest.fixture
def estimate(command: Command, url: str, tmp_path: Path) -> Command:
    """The command, asked about ``in.txt``, or about lines that are given."""

    def run(*arguments: str, lines: str = "Why?\nWho?\nWhy?\n") -> Any:
        (tmp_path / "in.txt").write_text(lines)
        return command("estimate", "in.txt", "--url", url, *arguments)

    return run


def test_figures_and_where_they_come_from(estimate: Command) -> None:
    done = estimate("--max-tokens", "8", "--temperature", "0", "--price-per-hour", "3600")
    assert done.code == 0, done.err
    rows = [row.split("\t") for row in done.out.splitlines()]
    assert rows[0] == ["figure", "value", "from"]
    told = {name: (value, source) for name, value, source in rows[1:]}
    assert told["rows"] == ("3", "counted")
    assert told["duplicates"][0].startswith("1 rows, ")
    assert told["output tokens"][0] == "24 (3 to 24)"
    assert "never measured here" in told["device time"][1]
    assert "costs " in told["3× the rows"][0]
    assert "Reading in.txt as text" in done.err


def test_json_is_for_programs(estimate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_DEVICE_PRICE_PER_HOUR", "36000")
    done = estimate("--json", "--deadline", "365d", "--temperature", "0", "--quiet")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert (told["input"], told["sample_id"]) == ("in.txt", None)
    assert told["meets_deadline"] == [True, True, True]
    assert told["estimate"]["duplicate_rows"] == 1
    first = told["estimate"]["volumes"][0]
    assert first["cost"] == pytest.approx(10 * first["device_seconds"], rel=0.01)
    assert [each["rows"] for each in told["estimate"]["volumes"]] == [3, 6, 9]
    assert told["estimate"]["output_tokens"]["source"] == "limit"


def test_a_deadline_that_will_be_missed_is_an_exit_code(estimate: Command) -> None:
    lines = "".join(f"Tell me of {number}.\n" for number in range(2_000))
    # Two million tokens, whatever processor this is.
    soon = (datetime.now() + timedelta(seconds=5)).isoformat()
    done = estimate("--deadline", soon, "--max-tokens", "1000", lines=lines)
    assert done.code == 6, done.err
    assert "TOO LATE" in done.out


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        ('{"prompt": "Why?"}\n{"prompt": null}\n', 3, "row 2: The field 'prompt' is null"),
        (REQUEST % 1 + REQUEST % 2, 4, "2 of 2 rows cannot be run"),
    ],
)
def test_rows_that_cannot_be_run_are_told(
    estimate: Command, lines: str, code: int, words: str
) -> None:
    done = estimate(lines=lines)
    assert done.code == code
    assert words in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sample", "0"), "0 is not 1 or more"),
        (("--sample", "-3"), "-3 is not 1 or more"),
        (("--sample", "4"), "in.txt has 3 rows; 4 cannot be taken of them"),
        (("--deadline", "soon"), "'soon' is not a time of day"),
        (("--deadline", "1999-01-01"), "has passed"),
        (("--price-per-hour", "-1"), "-1.0 is not 0 or more"),
        (("--price-per-hour", "nan"), "nan is not 0 or more"),
        (("--history",), "leave the input out"),
    ],
)
def test_wrong_usage(estimate: Command, arguments: tuple[str, ...], words: str) -> None:
    done = estimate(*arguments)
    assert done.code == 2
    assert words in done.err
    assert done.out == ""


def test_without_an_input_there_is_only_history(command: Command, url: str) -> None:
    assert command("estimate", "--url", url).code == 2
    done = command("estimate", "--history", "--url", url)
    assert done.code == 0
    assert done.out.startswith("id\tinput\trows\toutput tokens\texpected\tratio")
    assert json.loads(command("estimate", "--history", "--json", "--url", url).out) == []


def test_a_template_makes_requests_of_a_table(command: Command, url: str, tmp_path: Path) -> None:
    (tmp_path / "cities.csv").write_text("city,country\nParis,France\nLima,Peru\n")
    template = ("--template", "Is {{ city }} in {{ country }}?", "--max-tokens", "4")
    done = command("estimate", "cities.csv", *template, "--url", url, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["estimate"]["output_tokens"]["most"] == 8
