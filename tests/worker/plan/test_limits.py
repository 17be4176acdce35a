"""What a whole input may be: gzip or plain, and how much of it, before any line is planned."""

import gzip
import io
import random
import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from storage.database.states import JobState
from storage.errors import DecodedTooLarge
from storage.streams.gzipped import decoded
from storage.streams.jsonl import read_lines

Line = Callable[..., dict[str, Any]]


def _packed(lines: list[dict[str, Any]]) -> bytes:
    return gzip.compress(b"\n".join(map(orjson.dumps, lines)))


def test_a_gzipped_input_is_run_like_a_plain_one(bench: Any, line: Line) -> None:
    lines = [line(f"row{i}", [i + 2, 3]) for i in range(60)]
    job = bench.finish(bench.create([_packed(lines)]))
    assert (job.state, job.n_lines, job.n_ok) == (JobState.COMPLETED, 60, 60)
    assert [row["custom_id"] for row in bench.read(job.out_key)] == [f"row{i}" for i in range(60)]


def test_bad_lines_of_a_gzipped_input_are_reported_by_number(bench: Any, line: Line) -> None:
    lines: list[dict[str, Any]] = [line("a"), {"custom_id": "b"}, line("a")]
    errors = bench.finish(bench.create([_packed(lines)])).errors
    assert [(error["line"], error["code"]) for error in errors] == [
        (2, "missing_required_parameter"),
        (3, "duplicate_custom_id"),
    ]


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_a_gzipped_input_that_holds_too_much_is_refused(
    make_bench: Any, line: Line, on_invalid: str
) -> None:
    bench = make_bench(max_decoded_bytes=10_000)
    packed = _packed([line("a", "w " * 4_000), line("b", "w " * 4_000)])
    assert len(packed) < 500
    job = bench.finish(bench.create([packed], on_invalid=on_invalid))
    assert (job.state, job.errors[0]["code"]) == (JobState.FAILED, "input_too_large")
    assert "10000 bytes" in job.errors[0]["message"]


def test_a_gzip_bomb_without_a_line_end_is_one_line_that_is_too_long(
    make_bench: Any, line: Line
) -> None:
    bench = make_bench(max_line_bytes=100_000)
    job = bench.finish(bench.create([gzip.compress(b"[" * 10_000_000)]))
    assert [error["code"] for error in job.errors] == ["line_too_long"]


BOMBS = (b"\n", b" \n", b"\0\r\n", "\u2028\n".encode(), b"x\n", b"[")


@pytest.mark.parametrize("content", BOMBS)
def test_a_gzip_bomb_is_refused_at_its_beginning(content: bytes) -> None:
    """What it holds makes no difference: it is refused once 16 MiB have come out of it."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = deflate.compress(content * (20_000_000 // len(content))) + deflate.flush()
    packed += random.Random(1).randbytes(4_000_000)  # what follows in the file pays for nothing
    stream = decoded(io.BytesIO(packed), max_bytes=1 << 40)
    with pytest.raises(DecodedTooLarge):
        stream.read(18 << 20)


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
@pytest.mark.parametrize("content", [b"\n", b" \t\r\n", b"\0\n"])
def test_blank_lines_count_as_lines(
    make_bench: Any, line: Line, content: bytes, on_invalid: str
) -> None:
    bench = make_bench(max_batch_lines=50_000)
    blank = content * 50_000
    job = bench.finish(bench.create([blank, orjson.dumps(line("a"))], on_invalid=on_invalid))
    assert (job.state, job.errors[0]["code"]) == (JobState.FAILED, "too_many_tasks")
    within = bench.finish(bench.create([blank[: -2 * len(content)], line("a")]))
    assert (within.state, within.n_ok) == (JobState.COMPLETED, 1)


def test_blank_lines_do_not_keep_a_job_from_being_stopped() -> None:
    """They are passed over by the million, and the heartbeat is felt all the while."""
    beats = []
    stream = io.BytesIO(b"\n" * 3_000_000)
    for _ in read_lines(stream, max_line_bytes=1 << 23, heartbeat=lambda: beats.append(1)):
        pass
    assert len(beats) > 10


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data + b"x", lambda data: data[:30] + data[31:]]
)
def test_a_damaged_gzip_file_fails_the_batch(
    bench: Any, line: Line, damage: Callable[[bytes], bytes]
) -> None:
    packed = _packed([line(f"row{i}") for i in range(200)])
    job = bench.finish(bench.create([damage(packed)], on_invalid="skip"))
    assert (job.state, job.errors[0]["code"]) == (JobState.FAILED, "input_damaged")


def test_gzip_of_nothing_is_an_empty_batch(bench: Any) -> None:
    job = bench.finish(bench.create([gzip.compress(b"")], on_invalid="skip"))
    assert job.errors[0]["code"] == "empty_batch"


def test_too_many_lines_fail_the_batch_before_any_is_planned(make_bench: Any, line: Line) -> None:
    bench = make_bench(max_batch_lines=3)
    job = bench.finish(bench.create([line(f"row{i}") for i in range(4)], on_invalid="skip"))
    assert (job.state, job.errors[0]["code"]) == (JobState.FAILED, "too_many_tasks")
    assert not list(bench.worker.store.list(f"plans/{job.id}/"))


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused_without_a_crash(bench: Any, line: Line, opening: bytes) -> None:
    deep = b'{"custom_id": "deep", "body": ' + opening * 200_000
    job = bench.finish(bench.create([line("a"), deep, line("b")], on_invalid="skip"))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 2, 1)
    (error,) = bench.read(job.err_key)
    assert error["response"]["body"]["error"]["code"] == "invalid_json_line"


@pytest.mark.parametrize("field", ["prompt", "logit_bias", "stop", "user", "no such field"])
def test_nesting_as_deep_as_the_parser_allows_ends_as_that_lines_error(
    bench: Any, line: Line, field: str
) -> None:
    nested = b"[" * 1_000 + b"]" * 1_000
    deep = orjson.dumps(line("deep", **{field: "here"})).replace(b'"here"', nested)
    job = bench.finish(bench.create([line("a"), deep], on_invalid="skip"))
    assert (job.state, job.n_ok + job.n_err) == (JobState.COMPLETED, 2)
    assert job.n_ok == (2 if field == "user" else 1)


def test_nesting_beside_a_messages_content_harms_nothing(bench: Any) -> None:
    nested = b'{"a":' * 1_000 + b"1" + b"}" * 1_000
    chat = "/v1/chat/completions"
    message = {"role": "user", "content": "hello", "name": "here"}
    body = {"model": "smollm2", "messages": [message], "max_tokens": 2}
    row = {"custom_id": "a", "method": "POST", "url": chat, "body": body}
    deep = orjson.dumps(row).replace(b'"here"', nested)
    job = bench.finish(bench.create([deep], endpoint=chat, on_invalid="skip"))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 1, 0)
