import asyncio
from collections.abc import AsyncIterator

import pytest

from api.errors import ApiError
from api.multipart import FieldBegin, FieldData, FieldEnd, read_events

BOUNDARY = "----boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    )
    return body + f"--{BOUNDARY}--\r\n".encode()


def parse(
    body: bytes, step: int, content_type: str = CONTENT_TYPE
) -> list[tuple[FieldBegin, bytes]]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), step):
            yield body[start : start + step]

    async def collect() -> list[tuple[FieldBegin, bytes]]:
        parts: list[tuple[FieldBegin, bytes]] = []
        begin, data = None, b""
        async for event in read_events(content_type, pieces(), max_fields=32):
            match event:
                case FieldBegin():
                    begin, data = event, b""
                case FieldData(piece):
                    data += piece
                case FieldEnd():
                    assert begin is not None
                    parts.append((begin, data))
        return parts

    return asyncio.run(collect())


@pytest.mark.parametrize("step", [1, 2, 7, 64, 100_000])
def test_any_cut_of_the_body_gives_the_same_parts(step: int) -> None:
    tricky = f"\r\n--{BOUNDARY[:-1]}\r\n--\r\n\r".encode() * 3 + bytes(range(256))
    body = form(('name="purpose"', b"batch"), ('name="file"; filename="größe.jsonl"', tricky))
    assert parse(body, step) == [
        (FieldBegin("purpose", None), b"batch"),
        (FieldBegin("file", "größe.jsonl"), tricky),
    ]


def test_an_empty_part_is_a_part() -> None:
    assert parse(form(('name="file"; filename="a"', b"")), 10) == [(FieldBegin("file", "a"), b"")]


@pytest.mark.parametrize("cut", [3, 5, 30])
def test_a_body_that_ends_early_is_refused(cut: int) -> None:
    body = form(('name="file"; filename="a"', b"x" * 20))
    with pytest.raises(ApiError) as caught:
        parse(body[:-cut], 16)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", form(('name="file"', b""))),
        (CONTENT_TYPE, b"garbage that is no form"),
        (CONTENT_TYPE, form(("", b"no name"))),
        (CONTENT_TYPE, form((f'name="{"x" * 9000}"', b"a header without end"))),
        (f"multipart/form-data; boundary={'b' * 5000}", b""),
        ("", b""),
    ],
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse(body, 1000, content_type)
    assert (caught.value.status, caught.value.code) == (400, "invalid_multipart")
