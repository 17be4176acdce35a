"""What a user hands in as prompts and parameters: taken as it is meant, or named in one error."""

from typing import Any

import numpy as np
import pytest
import torch

from engine import Request, SamplingParams
from engine.errors import InvalidRequest
from engine.prompts import read_params, read_prompt, split_prompts
from engine.token_ids import token_ids

CHAT = [{"role": "user", "content": "x"}]
INTEGERS = ("uint8", "int16", "int32", "int64", "uint64")


@pytest.mark.parametrize(
    "ids",
    [
        [3, 4],
        (3, 4),
        range(3, 5),
        iter([3, 4]),
        [np.int64(3), np.uint8(4)],
        [torch.tensor(3), np.array(4)],
        np.array([3, 4], dtype=object),
        *(np.array([3, 4], dtype) for dtype in INTEGERS),
        *(torch.tensor([3, 4], dtype=getattr(torch, dtype)) for dtype in INTEGERS),
    ],
)
def test_token_ids_of_every_kind_are_plain_ints(ids: Any) -> None:
    read = token_ids(ids)
    assert read == (3, 4)
    assert {type(each) for each in read} == {int}
    assert Request("a", read).prompt == read


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([1, True], r"item 1 is True \(bool\)"),
        ([np.bool_(True)], r"item 0 is np.True_ \(bool"),
        ([1, 2.0], r"item 1 is 2.0 \(float\)"),
        ([1, None], "item 1 is None"),
        (["1"], r"item 0 is '1' \(str\)"),
        ([[1]], r"item 0 is \[1\] \(list\)"),
        ("12", r"not '12' \(str\)"),
        (b"12", r"not b'12' \(bytes\)"),
        (7, r"not 7 \(int\)"),
        (np.array([1.0]), r"not an array of float64 of shape \(1,\)"),
        (np.array([True]), "not an array of bool"),
        (np.array([[1]]), r"of shape \(1, 1\)"),
        (torch.tensor([1.0]), r"not an array of float32"),
        (torch.tensor([True]), "not an array of bool"),
        (torch.tensor(5), r"of shape \(\)"),
    ],
)
def test_what_is_no_token_ids_is_named(ids: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as raised:
        token_ids(ids, "prompt_token_ids")
    assert raised.value.param == "prompt_token_ids"
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("prompts", "count", "alone"),
    [
        ("text", 1, True),
        ({"prompt": "text"}, 1, True),
        ([3, 4], 1, True),
        (np.array([3, 4]), 1, True),
        (torch.tensor([3, 4]), 1, True),
        (CHAT, 1, True),
        ([], 0, False),
        (["text"], 1, False),
        (("a", "b"), 2, False),
        (iter(["a", "b"]), 2, False),
        ({"a": 1, "b": 2}.keys(), 2, False),
        (np.array(["a", "b"]), 2, False),
        (np.array(["a", "b"], np.dtypes.StringDType()), 2, False),
        (np.array(["a", [1]], dtype=object), 2, False),
        ([[3, 4], "a"], 2, False),
        ([5, "a"], 2, False),
        ([CHAT, CHAT], 2, False),
        ([{"prompt": "a"}, {"prompt_token_ids": [1]}], 2, False),
        (np.array([[3, 4], [5, 6]]), 2, False),
        (torch.tensor([[3, 4], [5, 6]]), 2, False),
    ],
)  # fmt: skip
def test_one_prompt_is_told_from_several(prompts: Any, count: int, alone: bool) -> None:
    batch = split_prompts(prompts)
    assert (len(batch.prompts), batch.alone) == (count, alone)


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("text", "text"),
        (np.str_("text"), "text"),
        ({"prompt": "text", "prompt_token_ids": None}, "text"),
        ({"prompt_token_ids": np.array([1, 2])}, (1, 2)),
        ({"prompt": [1, 2]}, (1, 2)),
        ({"prompt": CHAT}, CHAT),
        (CHAT, CHAT),
        ([], ()),
    ],
)
def test_a_prompt_is_text_ids_or_messages(prompt: Any, read: object) -> None:
    assert read_prompt(prompt) == read


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (None, "not None"),
        (3.5, r"not 3\.5 \(float\)"),
        (b"x", r"not b'x' \(bytes\)"),
        (["a", "b"], r"not \['a', 'b'\] \(list\)"),
        ([[1, 2]], r"not \[\[1, 2\]\] \(list\)"),
        ({}, r"one key, 'prompt' or 'prompt_token_ids', not \[\]"),
        ({"text": "x"}, r"not \['text'\]"),
        ({"prompt": "x", "prompt_token_ids": [1]}, r"not \['prompt', 'prompt_token_ids'\]"),
        ({"prompt": {"prompt": "x"}}, "not {'prompt'"),
        (CHAT[0], "One message is no prompt"),
        ([*CHAT, {"content": "x"}], "has a 'role', a text; message 1 is {'content': 'x'}"),
        (["x" * 10**6], "not \\['xxx"),
    ],
)
def test_what_is_no_prompt_is_named(prompt: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as raised:
        read_prompt(prompt)
    assert len(str(raised.value)) < 200


def test_params_are_one_for_all_or_one_a_prompt() -> None:
    one, default = SamplingParams(n=2), SamplingParams()
    assert read_params(None, 2) == [default, default]
    assert read_params(one, 2) == [one, one]
    assert read_params(iter([one, None]), 2) == [one, default]
    for wrong, said in (
        ([one], "2 prompts and 1 params"),
        ([one, {"n": 1}], r"item 1 is {'n': 1} \(dict\)"),
        ({"n": 1}, "not {'n': 1}"),
        (5, "not 5"),
        ("ab", "not 'ab'"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            read_params(wrong, 2)


def test_none_is_a_parameter_s_default_and_numpy_s_numbers_are_numbers() -> None:
    names = [name for name in SamplingParams.__dataclass_fields__ if name != "max_tokens"]
    nothing: dict[str, Any] = dict.fromkeys(names)
    assert SamplingParams(**nothing) == SamplingParams()
    assert SamplingParams(max_tokens=None).max_tokens is None
    given: dict[str, Any] = {
        "max_tokens": np.int64(5),
        "temperature": np.float32(0.5),
        "ignore_eos": np.bool_(True),
        "logit_bias": {np.int32(3): np.float64(1.5)},
        "stop": np.array(["a", "b"]),
        "stop_token_ids": np.array([3, 4]),
    }
    plain: dict[str, Any] = {
        "max_tokens": 5,
        "temperature": 0.5,
        "ignore_eos": True,
        "logit_bias": {3: 1.5},
        "stop": ("a", "b"),
        "stop_token_ids": (3, 4),
    }
    read = SamplingParams(**given)
    assert read == SamplingParams(**plain)
    assert type(read.max_tokens) is int
    assert type(read.temperature) is float


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("temperature", "0.5", r"temperature must be a number, not '0\.5' \(str\)"),
        ("temperature", True, r"not True \(bool\)"),
        ("temperature", float("nan"), "between 0 and 2, not nan"),
        ("max_tokens", 5.0, r"a whole number, not 5\.0 \(float\)"),
        ("n", [2], r"not \[2\] \(list\)"),
        ("ignore_eos", "no", r"true or false, not 'no' \(str\)"),
        ("stop", 5, r"not 5 \(int\)"),
        ("stop", ["a", None], "not None"),
        ("stop", b"a", r"not b'a' \(bytes\)"),
        ("stop_token_ids", 5, r"not 5 \(int\)"),
        ("stop_token_ids", [True], r"item 0 is True \(bool\)"),
        ("logit_bias", [5], r"not be \[5\] \(list\)"),
        ("logit_bias", {"5": 1}, r"item 0 is '5' \(str\)"),
        ("logit_bias", {5: None}, "must be a number, not None"),
    ],
)
def test_a_parameter_of_a_wrong_type_is_named(name: str, value: Any, said: str) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(InvalidRequest, match=said) as raised:
        SamplingParams(**given)
    assert raised.value.param == name


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"id": 5}, "id"),
        ({"prompt": "text"}, "prompt"),
        ({"prompt": (1, True)}, "prompt"),
        ({"params": {"n": 1}}, "params"),
        ({"salt": None}, "salt"),
    ],
)
def test_a_request_of_wrong_types_is_refused(given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        Request(**{"id": "a", "prompt": (1,), **given})
    assert raised.value.param == param
