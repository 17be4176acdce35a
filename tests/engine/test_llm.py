"""The engine whole, on the embedded model: what a user of ``from engine import LLM`` sees."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from engine import LLM, Completion, SamplingParams
from engine.config import EngineConfig
from engine.core import EngineCore
from engine.errors import InvalidConfig, InvalidRequest, ModelNotFound
from engine.llm import Prompt
from engine.output import FinishedRequest
from engine.requests import Request
from engine.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0, max_tokens=12)
TEXTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at",
    "Zażółć gęślą jaźń —",
    "1, 2, 3, 4,",
]


def ask(llm: LLM, question: str, params: SamplingParams) -> Completion:
    return llm.generate([[{"role": "user", "content": question}]], params, progress=False)[0]


def texts(completions: list[Completion]) -> list[str]:
    return [completion.text for completion in completions]


@pytest.fixture(scope="module")
def expected(llm: LLM) -> list[str]:
    """Each text's greedy answer when it runs alone."""
    return [llm.generate(text, GREEDY, progress=False)[0].text for text in TEXTS]


def test_it_knows_the_capital_of_france(llm: LLM) -> None:
    answer = ask(llm, "What is the capital of France?", SamplingParams(temperature=0))
    assert answer.text == "The capital of France is Paris."
    assert answer.outputs[0].finish_reason == "stop"
    assert answer.outputs[0].token_ids[-1] == 2  # <|im_end|>, reported but not in the text


def test_a_batch_gives_each_what_it_gets_alone(llm: LLM, expected: list[str]) -> None:
    assert texts(llm.generate(TEXTS, GREEDY, progress=False)) == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"prefix_caching": False},
        {"max_batch_tokens": 4, "max_num_seqs": 3},
        {"chunked_prefill": False, "max_batch_tokens": 8, "max_num_seqs": 8},
        {"block_size": 32},
        {"batching": "static", "batch_size": 4},
        {"batching": "dynamic", "batch_size": 4, "batch_timeout": 0.01},
        # 5 blocks: two sequences of up to 40 tokens cannot both stay, so they are preempted.
        {"kv_cache_bytes": 5 * 16 * 46_080, "output_reserve": 0.0},
    ],
    ids=lambda settings: next(iter(settings)) + "=" + str(next(iter(settings.values()))),
)
def test_no_setting_changes_a_greedy_answer(
    settings: dict[str, object], expected: list[str]
) -> None:
    defaults = {"kv_cache_bytes": 100 * 2**20}
    llm = LLM("smollm2", device="cpu", dtype="float32", **(defaults | settings))
    assert texts(llm.generate(TEXTS, GREEDY, progress=False)) == expected
    assert texts(llm.generate(TEXTS, GREEDY, progress=False)) == expected  # now from the cache
    if "output_reserve" in settings:
        assert llm.stats().preemptions > 0


def test_prompts_may_be_texts_messages_or_token_ids(llm: LLM) -> None:
    text = "Water boils at"
    ids = llm.tokenizer.encode(text)
    prompts: list[Prompt] = [text, ids]
    by_text, by_ids = llm.generate(prompts, GREEDY, progress=False)
    assert by_text.outputs == by_ids.outputs
    assert by_text.prompt_token_ids == tuple(ids)


def test_params_may_differ_by_prompt_and_must_be_as_many(llm: LLM) -> None:
    short, long = (SamplingParams(temperature=0, max_tokens=n) for n in (2, 5))
    a, b = llm.generate(TEXTS[:2], [short, long], progress=False)
    assert (a.completion_tokens, b.completion_tokens) == (2, 5)
    assert a.outputs[0].finish_reason == b.outputs[0].finish_reason == "length"
    with pytest.raises(InvalidRequest, match="2 prompts and 1 params"):
        llm.generate(TEXTS[:2], [short], progress=False)


def test_a_repeated_prompt_comes_from_the_cache_and_a_salt_keeps_tenants_apart() -> None:
    llm = LLM("smollm2", device="cpu", dtype="float32", kv_cache_bytes=50 * 2**20)
    prompt = list(range(1000, 1100))
    counts = []
    for salt in ("a", "a", "b"):
        llm.submit(prompt, SamplingParams(max_tokens=1), salt=salt)
        while llm.has_work:
            counts += [completion.cached_tokens for completion in llm.step()]
    assert counts == [0, 96, 0]


def test_stop_strings_end_the_text_before_them(llm: LLM) -> None:
    free = llm.generate("1, 2, 3, 4,", GREEDY, progress=False)[0]
    assert "7" in free.text
    cut = SamplingParams(temperature=0, max_tokens=12, stop=("7",))
    answer = llm.generate("1, 2, 3, 4,", cut, progress=False)[0]
    assert answer.text == free.text.split("7")[0]
    assert answer.outputs[0].finish_reason == "stop"
    with_stop = SamplingParams(
        temperature=0, max_tokens=12, stop=("7",), include_stop_str_in_output=True
    )
    assert llm.generate("1, 2, 3, 4,", with_stop, progress=False)[0].text == answer.text + "7"


def test_stop_token_ids_and_min_tokens(llm: LLM) -> None:
    free = llm.generate(TEXTS[0], GREEDY, progress=False)[0].outputs[0]
    third = free.token_ids[2]
    stopped = SamplingParams(temperature=0, max_tokens=12, stop_token_ids=(third,))
    output = llm.generate(TEXTS[0], stopped, progress=False)[0].outputs[0]
    assert output.token_ids == free.token_ids[:3]
    assert output.finish_reason == "stop"
    later = SamplingParams(temperature=0, max_tokens=12, stop_token_ids=(third,), min_tokens=6)
    longer = llm.generate(TEXTS[0], later, progress=False)[0].outputs[0]
    assert len(longer.token_ids) >= 6
    assert third not in longer.token_ids[:6]


def test_ignore_eos_generates_on(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    answer = ask(llm, "What is the capital of France?", params)
    assert answer.completion_tokens == 30
    assert answer.outputs[0].finish_reason == "length"


def test_n_answers_come_in_order_and_differ(llm: LLM) -> None:
    params = SamplingParams(n=4, seed=7, max_tokens=12)
    answer = llm.generate(TEXTS[1], params, progress=False)[0]
    assert [output.index for output in answer.outputs] == [0, 1, 2, 3]
    assert len({output.text for output in answer.outputs}) > 1
    again = llm.generate([TEXTS[0], TEXTS[1]], [GREEDY, params], progress=False)[1]
    assert again.outputs == answer.outputs


def test_logprobs_name_the_chosen_token_and_the_best(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=3)
    output = llm.generate(TEXTS[0], params, progress=False)[0].outputs[0]
    assert output.logprobs is not None
    assert len(output.logprobs) == 4
    for token_id, position in zip(output.token_ids, output.logprobs, strict=True):
        assert position.chosen.token_id == token_id == position.top[0].token_id
        assert position.chosen.logprob == position.top[0].logprob <= 0
        assert [t.logprob for t in position.top] == sorted(
            (t.logprob for t in position.top), reverse=True
        )
    joined = b"".join(position.chosen.bytes for position in output.logprobs)
    assert joined.decode() == output.text


def test_multi_byte_characters_survive_token_borders(llm: LLM) -> None:
    for text in ("日本語と한국어", "🙂👩‍👩‍👧‍👦", "naïve façade"):
        ids = llm.tokenizer.encode(text)
        assert llm.tokenizer.decode(ids) == text
        assert b"".join(map(llm.tokenizer.token_bytes, ids)).decode() == text


def test_what_cannot_run_is_a_typed_answer_and_the_rest_runs(llm: LLM) -> None:
    limit = llm.info.context_length
    prompts: list[Prompt] = [[1000] * limit, [], [10**6], "Water boils at"]
    long, empty, unknown, good = llm.generate(prompts, GREEDY, progress=False)
    assert (long.error_code, long.outputs) == ("context_length_exceeded", ())
    assert str(limit) in (long.error or "")
    assert empty.error_code == unknown.error_code == "invalid_request"
    assert good.error is None
    assert good.completion_tokens == 12


def test_the_context_s_end_ends_the_answer() -> None:
    llm = LLM("smollm2", device="cpu", dtype="float32", max_model_len=64)
    params = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)
    answer = llm.generate([[1000] * 60], params, progress=False)[0]
    assert answer.completion_tokens == 4
    assert answer.outputs[0].finish_reason == "length"


def test_min_tokens_outlasts_a_stop_string(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=16, min_tokens=10, stop=("7",))
    answer = llm.generate("1, 2, 3, 4,", params, progress=False)[0]
    assert "7" in answer.text
    assert answer.completion_tokens >= 10


def test_what_was_submitted_before_generate_is_not_lost(llm: LLM) -> None:
    earlier = llm.submit("Water boils at", GREEDY)
    (later,) = llm.generate(TEXTS[0], GREEDY, progress=False)
    assert later.request_id != earlier
    done = []
    while llm.has_work:
        done += llm.step()
    assert [completion.request_id for completion in done] == [earlier]


def test_an_interrupted_step_leaves_no_wrong_prefix_behind(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = list(range(3000, 3040))
    expected = LLM("smollm2", device="cpu", dtype="float32", kv_cache_bytes=50 * 2**20)
    fresh = expected.generate([prompt], GREEDY, progress=False)[0].text

    def interrupt(*args: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("engine.executors.native_decoder.NativeDecoder.head", interrupt)
        patch.setattr("engine.models.decoder.silu_and_mul", interrupt)
        with pytest.raises(KeyboardInterrupt):
            llm.generate([prompt], GREEDY, progress=False)
    assert not llm.has_work
    again = llm.generate([prompt], GREEDY, progress=False)[0]
    assert (again.text, again.cached_tokens) == (fresh, 0)


def test_a_wrong_model_or_device_says_what_to_do() -> None:
    with pytest.raises(ModelNotFound, match="smollm2"):
        LLM("no-such-model")
    with pytest.raises(InvalidConfig, match="auto, cpu or cuda"):
        LLM("smollm2", device="abacus")
    with pytest.raises(InvalidConfig, match="block_size"):
        LLM("smollm2", block_size=0)


def test_answers_are_decoded_by_whoever_asks_while_the_engine_goes_on(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        GREEDY,
        SamplingParams(temperature=0, max_tokens=5, logprobs=2),
        SamplingParams(temperature=0, max_tokens=12, stop=("7",)),
    ]
    expected = llm.generate([TEXTS[5]] * 3, asked, progress=False)
    core = EngineCore(EngineConfig(dtype="float32", device="cpu", kv_cache_bytes=50 * 2**20))
    prompt = tuple(core.tokenizer.encode(TEXTS[5]))
    for index, params in enumerate(asked):
        core.add(Request(str(index), prompt, params))
    finished: list[FinishedRequest] = []
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "decode", None)  # the step's thread must not need it
        while core.has_work:
            finished += core.step()
    with ThreadPoolExecutor(2) as pool:
        made = {c.request_id: c for c in pool.map(FinishedRequest.completion, finished)}
    assert [made[str(index)].outputs for index in range(3)] == [c.outputs for c in expected]


def test_a_refusal_outlives_an_interrupted_step(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **named: object) -> None:
        raise KeyboardInterrupt

    refused = llm.submit([10**9], GREEDY)
    good = llm.submit([3000, 3001], GREEDY)
    with monkeypatch.context() as patch:
        patch.setattr(llm._core.runner, "launch", interrupt)
        with pytest.raises(KeyboardInterrupt):
            llm.step()
    done = []
    while llm.has_work:
        done += llm.step()
    assert {completion.request_id for completion in done} == {refused, good}


def test_the_greatest_top_k_is_served(llm: LLM) -> None:
    params = SamplingParams(top_k=2**31 - 1, max_tokens=2)
    assert llm.generate("The sea is", params, progress=False)[0].completion_tokens
    with pytest.raises(InvalidRequest):
        SamplingParams(top_k=2**31)
