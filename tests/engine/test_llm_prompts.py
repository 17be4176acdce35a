"""The engine whole: prompts in every form that a user may hold, and what is none among them."""

from typing import Any

import numpy as np
import pytest
import torch

from engine import LLM, SamplingParams
from engine.errors import InvalidRequest

FIRST = SamplingParams(temperature=0, max_tokens=1)


def test_a_bad_prompt_among_good_ones_is_its_own_error(llm: LLM) -> None:
    bad: list[Any] = [
        None,
        3.5,
        b"ids",
        [1, "x"],
        {"text": "x"},
        ["a"],
        "\ud800",
        [{"content": "x"}],
    ]
    done = llm.generate(["The sea is", *bad, "Water boils at"], FIRST, progress=False)
    assert [each.completion_tokens for each in (done[0], done[-1])] == [1, 1]
    codes = [each.error_code for each in done[1:-1]]
    assert codes == ["invalid_request"] * 6 + ["tokenizer_error", "invalid_request"]
    assert all(each.error and not each.outputs for each in done[1:-1])
    assert len({each.request_id for each in done}) == len(done)
    assert not llm.has_work


@pytest.mark.parametrize("alone", [None, 3.5, b"ids", {}, [1, True], [1.0, 2.0]])
def test_one_prompt_that_is_none_is_an_error_and_queues_nothing(llm: LLM, alone: Any) -> None:
    for call in (llm.generate, llm.submit, llm.chat):
        with pytest.raises(InvalidRequest):
            call(alone)
    assert not llm.has_work


def test_every_form_of_the_same_prompt_gives_the_same_answer(llm: LLM) -> None:
    text = "Water boils at"
    ids = llm.tokenizer.encode(text)
    expected = llm.generate(text, FIRST, progress=False)[0].outputs
    rows: list[Any] = [
        np.array(ids),
        torch.tensor(ids),
        {"prompt": text},
        {"prompt_token_ids": ids},
    ]
    for form in rows:
        assert llm.generate(form, FIRST, progress=False)[0].outputs == expected
    several: list[Any] = [rows, iter(rows), np.array([ids, ids]), torch.tensor([ids, ids]), (text,)]
    for form in several:
        done = llm.generate(form, [FIRST] * 4 if form is rows else FIRST, progress=False)
        assert {each.outputs for each in done} == {expected}
        assert {type(each) for done_ in done for each in done_.prompt_token_ids} == {int}


def test_chats_take_arguments_for_their_template(llm: LLM) -> None:
    chats = [[{"role": "user", "content": text}] for text in ("Hello!", "What is the sea?")]
    by_generate = llm.generate(chats, FIRST, progress=False)
    assert [each.outputs for each in llm.chat(chats, FIRST, progress=False)] == [
        each.outputs for each in by_generate
    ]
    open_ended = llm.chat(chats[0], FIRST, progress=False, add_generation_prompt=False)[0]
    assert len(open_ended.prompt_token_ids) < len(by_generate[0].prompt_token_ids)
    mixed: Any = [chats[0], "no chat"]
    good, bad = llm.chat(mixed, FIRST, progress=False)
    assert good.outputs == by_generate[0].outputs
    assert "A chat is a list of messages, not 'no chat' (str)" in (bad.error or "")
