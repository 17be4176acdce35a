"""The planner's two passes over an input: every bad line by number, and memory that stays flat."""

import io
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import TokenizerError
from storage.streams.jsonl import Line, read_lines
from worker.errors import PlanRefused
from worker.models.tokenizers import TextModel, TextModels
from worker.plan.check import Checked, check_lines
from worker.plan.duplicates import CustomIds
from worker.plan.envelope import InputLine, LineRules
from worker.plan.rows import PlannedLine, pack_tokens, unpack_params
from worker.plan.tokenize import LineTokenizer
from worker.plan.windows import Window, WindowLimits, windows
from worker.problems import Problem

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RULES = LineRules(CHAT, frozenset({"smollm2", "other"}), "smollm2")


def _line(custom_id: str, **body: Any) -> bytes:
    content = body or {"messages": [{"role": "user", "content": f"say {custom_id}"}]}
    envelope = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": content}
    return orjson.dumps(envelope)


def _lines(data: bytes) -> Iterator[Line]:
    return read_lines(io.BytesIO(data), max_line_bytes=2_000)


def _check(data: bytes, folder: Path, max_lines: int = 1_000_000) -> Checked:
    return check_lines(_lines(data), RULES, folder, max_lines=max_lines, heartbeat=lambda: None)


def _plan(data: bytes, folder: Path, models: TextModels, limits: WindowLimits) -> list[Window]:
    checked = _check(data, folder)
    tokenizer = LineTokenizer(CHAT, models, default_max_tokens=20)
    return list(windows(_lines(data), checked.problems, RULES, tokenizer, limits, lambda: None))


def test_every_bad_line_is_reported_once_with_its_number(tmp_path: Path) -> None:
    data = b"\n".join(
        [
            _line("a"),
            b"",
            b"{nope",
            _line("b"),
            _line("a"),
            _line("x" * 2_000),
            b'{"custom_id": "a"}',
            _line("b", model="gpt-9"),
            _line("c"),
        ]
    )
    checked = _check(data, tmp_path)
    assert checked.n_lines == 8
    assert [(problem.line, problem.code) for problem in checked.problems] == [
        (3, "invalid_json_line"),
        (5, "duplicate_custom_id"),
        (6, "line_too_long"),
        (7, "missing_required_parameter"),
        (8, "model_not_found"),
    ]
    doubled = list(checked.problems)[1]
    assert "line 1" in doubled.message


@pytest.mark.parametrize("data", [b"", b"\n\n  \n", b"\x1f\n\x00 \x7f"])
def test_an_input_without_lines_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(PlanRefused) as caught:
        _check(data, tmp_path)
    assert caught.value.code == "empty_batch"


def test_too_many_lines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanRefused) as caught:
        _check(b"\n".join(_line(str(i)) for i in range(4)), tmp_path, max_lines=3)
    assert caught.value.code == "too_many_tasks"


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_doubled_ids_are_found_against_the_first_use(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    ids = CustomIds(tmp_path_factory.mktemp("ids"))
    expected = []
    first: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        ids.add(name, line)
        if first.setdefault(name, line) != line:
            expected.append((line, first[name]))
    assert list(ids.duplicates()) == expected


@given(bad=st.lists(st.booleans(), min_size=1, max_size=40), size=st.integers(1, 9))
def test_each_line_is_in_one_window_planned_or_refused(
    tmp_path_factory: pytest.TempPathFactory, models: TextModels, bad: list[bool], size: int
) -> None:
    data = b"\n".join(b"{" if is_bad else _line(f"row{i}") for i, is_bad in enumerate(bad))
    folder = tmp_path_factory.mktemp("plan")
    found = _plan(data, folder, models, WindowLimits(lines=size, tokens=10_000))
    assert all(1 <= len(window.lines) + len(window.problems) <= size for window in found)
    planned = [row.line for window in found for row in window.lines]
    refused = [problem.line for window in found for problem in window.problems]
    assert refused == [i for i, is_bad in enumerate(bad, 1) if is_bad]
    assert sorted(planned + refused) == list(range(1, len(bad) + 1))
    lines = [
        [row.line for row in window.lines] + [problem.line for problem in window.problems]
        for window in found
    ]
    ends = [max(window) for window in lines]
    assert ends == sorted(ends), "windows follow the input"


def test_a_doubled_line_keeps_its_custom_id_for_the_error_file(
    tmp_path: Path, models: TextModels
) -> None:
    data = _line("twice") + b"\n" + _line("twice")
    (window,) = _plan(data, tmp_path, models, WindowLimits(10, 10_000))
    assert [problem.custom_id for problem in window.problems] == ["twice"]


def _one(body: dict[str, Any], models: TextModels, endpoint: str = CHAT) -> Any:
    tokenizer = LineTokenizer(endpoint, models, default_max_tokens=20)
    (result,) = tokenizer.tokenize([InputLine(7, "id", body.get("model", "smollm2"), body)])
    return result


def _said(words: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "w " * words}]


def test_a_prompt_is_tokenized_and_its_output_limited(models: TextModels) -> None:
    row = _one({"messages": _said(9), "temperature": 0}, models)
    assert isinstance(row, PlannedLine)
    assert row.prompt_tokens == 10  # the role and nine words, no special tokens added
    assert unpack_params(row.params).max_tokens == 20
    assert row.budget == 30
    assert row.deterministic


def test_a_limit_that_is_not_set_ends_at_the_context(models: TextModels) -> None:
    row = _one({"messages": _said(53)}, models)
    assert unpack_params(row.params).max_tokens == 10
    assert not row.deterministic


def test_the_budget_counts_every_output(models: TextModels) -> None:
    row = _one({"prompt": [5, 6], "n": 3, "max_tokens": 4}, models, TEXT)
    assert row.budget == 2 + 12


@pytest.mark.parametrize(
    ("body", "endpoint", "code", "param"),
    [
        ({"messages": _said(63)}, CHAT, "context_length_exceeded", "messages"),
        (
            {"messages": _said(9), "max_tokens": 60},
            CHAT,
            "context_length_exceeded",
            "messages",
        ),
        ({"prompt": "w " * 60}, TEXT, "context_length_exceeded", "prompt"),
        ({"prompt": [1_000]}, TEXT, "invalid_value", "prompt"),
        ({"prompt": [-1]}, TEXT, "invalid_value", "prompt"),
        ({"prompt": [1], "logit_bias": {"1000": 1}}, TEXT, "invalid_value", "logit_bias"),
        ({"prompt": [1], "stop_token_ids": [5_000]}, TEXT, "invalid_value", "stop_token_ids"),
        ({"messages": [{"role": "tool", "content": "x"}]}, CHAT, "invalid_value", "messages"),
        ({"messages": _said(1), "top_p": 7}, CHAT, "invalid_value", "top_p"),
        ({"messages": _said(50), "min_tokens": 30}, CHAT, "invalid_value", "min_tokens"),
    ],
)
def test_what_cannot_be_run_is_that_lines_problem(
    models: TextModels, body: dict[str, Any], endpoint: str, code: str, param: str
) -> None:
    problem = _one(body, models, endpoint)
    assert (problem.line, problem.code, problem.param) == (7, code, param)
    assert problem.custom_id == "id"


def test_the_context_message_has_the_numbers(models: TextModels) -> None:
    problem = _one({"messages": _said(9), "max_tokens": 60}, models)
    assert problem.message == (
        "This model's maximum context length is 64 tokens. However, you requested 70 tokens "
        "(10 in the messages, 60 in the completion). Please reduce the length of the messages or "
        "completion."
    )


def test_a_text_that_cannot_be_encoded_is_its_own_lines_problem_alone() -> None:
    class Fussy:
        fill_tokens = None

        def encode_batch(
            self, texts: Sequence[str], add_special_tokens: bool = True
        ) -> list[list[int]]:
            if "bad" in texts:
                raise TokenizerError("A text is no string.")
            return [[1, 2] for _ in texts]

        def text_of(self, ids: Sequence[int]) -> str:
            raise NotImplementedError

        def render_chat(self, messages: Sequence[Mapping[str, Any]], **kwargs: Any) -> str:
            raise NotImplementedError

    models = TextModels({"m": "m"}, lambda name, source: TextModel(name, Fussy(), 64, 1_000))
    lines = [
        InputLine(number, f"id{number}", "m", {"prompt": prompt})
        for number, prompt in enumerate(["good", "bad", "fine"], 1)
    ]
    first, second, third = LineTokenizer(TEXT, models, default_max_tokens=20).tokenize(lines)
    assert isinstance(first, PlannedLine)
    assert isinstance(third, PlannedLine)
    assert isinstance(second, Problem)
    assert (second.line, second.code, second.param) == (2, "invalid_value", "prompt")


def test_a_window_weighs_parameters_and_keeps_equal_ones_once() -> None:
    def row(line: int, stop: str) -> PlannedLine:
        return PlannedLine(line, "id", "m", pack_tokens([1]), stop * 4_000, 9, True)

    window = Window()
    for line, stop in enumerate("aab", 1):
        window.add(row(line, stop))
    assert 2_000 <= window.weight <= 2_010
    first, second, third = (row.params for row in window.lines)
    assert first is second
    assert third != first


class _Generated:
    """A stream of lines that are made as they are read, so the test itself holds none."""

    def __init__(self, count: int) -> None:
        self._lines = (_line(f"row-{i % (count - 10)}") + b"\n" for i in range(count))
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (line := next(self._lines, b"")):
            self._rest += line
        block, self._rest = self._rest[:size], self._rest[size:]
        return block


def _first_pass_peak(count: int, folder: Path) -> int:
    stream: BinaryIO = _Generated(count)  # type: ignore[assignment]
    folder.mkdir()
    tracemalloc.start()
    try:
        lines = read_lines(stream, max_line_bytes=2_000)
        checked = check_lines(lines, RULES, folder, max_lines=10**9, heartbeat=lambda: None)
        assert checked.n_lines == count
        assert checked.problems.count == 10
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_first_passs_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    small = _first_pass_peak(20_000, tmp_path / "small")
    large = _first_pass_peak(100_000, tmp_path / "large")
    # The ids alone would be some 10 MB in a set; the buffers of 256 partitions fill up to 4 MB.
    assert large < 8_000_000
    assert large - small < 4_000_000
