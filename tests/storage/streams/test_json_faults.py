"""What is wrong with a line that is not JSON, and where."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.streams.json_faults import json_fault


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"prompt": "Good night", "score": NaN}', "NaN at column 35"),
        (b'{"a": "NaN", "b": -Infinity}', "-Infinity at column 19"),
        (b'{"a": "cut \\ud83d"}', "half of a surrogate pair, \\ud83d, at column 12"),
        (b'{"a": "\\udc00"}', "half of a surrogate pair, \\udc00, at column 8"),
        (b'{"a": "\\ud83d\\u0041"}', "half of a surrogate pair, \\ud83d, at column 8"),
        (b'{"\\\\ud83d": "\\ud83d"}', "half of a surrogate pair, \\ud83d, at column 14"),
        (b'{"a": "\xed\xa0\xbd"}', "half of a surrogate pair at column 8"),
        ('{"ä": "'.encode() + b'\xe4"}', "the byte 0xE4, which is not UTF-8, at column 8"),
        (b"{'prompt': 'x'}", "a single quote at column 2"),
        (b'{"a": 1e999}', "the number at column 7 is out of range"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "the number at column 7 is out of range"),
        (b'{"a": 1', "it is cut off at column 8"),
        (b'{"a": "b', "it is cut off: the string at column 7 has no end"),
        (b"[", "it is cut off at column 2 (jq -c makes lines"),
        (b'{"a": 1,}', "a trailing comma at column 8"),
        (b"[1, ]", "a trailing comma at column 3"),
        (b'{"a": 1},', "a trailing comma at column 9"),
        (b'{"a": 1} {"b": 2}', "more than one value: another begins at column 10"),
        (b'{"a": None}', "the word None at column 7; JSON has null"),
        (b'{"a": True}', "the word True at column 7; JSON has true"),
        (b"{a: 1}", "the word a at column 2"),
        (b'{"a": "x\ty"}', "a control character, U+0009, in a string at column 9"),
        (b'{"a": "\\x41"}', "an escape that JSON does not have, at column 8"),
        (b'{"a": 01}', "'1' at column 8 is not expected there"),
        (b'{"a" 1}', "'1' at column 6 is not expected there"),
        (b"[" * 1_025 + b"]" * 1_025, "it is nested more than 1,024 deep"),
        (b'{"a": "[", "b": ' + b"[" * 5_000, "it is nested more than 1,024 deep"),
    ],
)
def test_a_fault_is_named_with_its_column(line: bytes, fault: str) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(line)
    assert (json_fault(line) or "").startswith(fault)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": "\\ud83d\\ude00 \\\\ud83d NaN", "b": [1e300, -0.0, null, true]}',
        b' {"a": "\xc3\xa4"}\r',
        b"[" * 900 + b"]" * 900,
    ],
)
def test_json_has_no_fault(line: bytes) -> None:
    orjson.loads(line)
    assert json_fault(line) is None


@given(st.binary(max_size=30) | st.text("{}[]\"',:\\ud8N0e1-. ", max_size=20).map(str.encode))
def test_whatever_the_service_refuses_has_a_fault(line: bytes) -> None:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        assert json_fault(line) is not None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_what_python_writes_has_a_fault_only_where_it_is_not_json(value: object) -> None:
    line = json.dumps(value).encode()
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        assert json_fault(line) is not None
    else:
        assert json_fault(line) is None
