"""The engine from Python: ``LLM("smollm2").generate(prompts, params)``."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import sleep
from typing import Any, NamedTuple

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.errors import InvalidRequest, TokenizerError
from engine.info import EngineInfo
from engine.params import SamplingParams
from engine.prefix_order import depth_first, pack_tokens
from engine.prompts import (
    Message,
    Prompt,
    read_chat,
    read_params,
    read_prompt,
    split_prompts,
)
from engine.requests import Completion, EngineStats, Request
from engine.tokenizer import Tokenizer

__all__ = ["LLM", "Message", "Prompt"]

Params = SamplingParams | Iterable[SamplingParams | None] | None


class _Encoded(NamedTuple):
    """A prompt's tokens, and whether its outputs go on from its text (`Request.continues`)."""

    token_ids: tuple[int, ...]
    continues: bool


class LLM:
    """A model in this process.

    >>> llm = LLM("smollm2")
    >>> llm.generate("The capital of France is", SamplingParams(temperature=0))[0].text

    Args:
        model: a built-in name, a Hugging Face folder or a GGUF file.
        settings: any other field of `EngineConfig`.

    Raises:
        EngineError: the model cannot be found or loaded; see `engine.errors`.
    """

    def __init__(self, model: str = "smollm2", **settings: Any) -> None:
        self._core = EngineCore(EngineConfig(model=model, **settings))
        self._next_id = 0
        # Finished while `generate` ran, but submitted before it: the next `step` returns them.
        self._others: list[Completion] = []

    @property
    def info(self) -> EngineInfo:
        """What the engine chose for this machine."""
        return self._core.info

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer and chat template."""
        return self._core.tokenizer

    def stats(self) -> EngineStats:
        """The engine's counters."""
        return self._core.stats()

    def submit(
        self, prompt: Prompt, params: SamplingParams | None = None, *, salt: str = ""
    ) -> str:
        """Queue one prompt and return its request id; `step` gives its completion.

        >>> request_id = llm.submit("Once upon a time", SamplingParams(max_tokens=50))
        >>> while llm.has_work:
        ...     for completion in llm.step():
        ...         print(completion.request_id, completion.text)

        Args:
            prompt: in any form that `generate` takes.
            params: how to sample; ``None`` is the defaults.
            salt: prompts share cached prefixes only under equal salts.

        Raises:
            InvalidRequest: the prompt is neither text, chat messages nor token ids, or the params
                are no `SamplingParams`; the message says what they are.
            TokenizerError: the chat template refuses the messages.

        One that cannot run, as it is too long, is no exception: its completion has ``error`` set.
        """
        (checked,) = read_params([params], 1)
        return self._add(self._encode(prompt), checked, salt)

    def _add(self, encoded: _Encoded, params: SamplingParams, salt: str = "") -> str:
        request_id = self._new_id()
        self._core.add(Request(request_id, encoded.token_ids, params, salt, encoded.continues))
        return request_id

    def _new_id(self) -> str:
        request_id = str(self._next_id)
        self._next_id += 1
        return request_id

    @property
    def has_work(self) -> bool:
        """Whether a submitted prompt has not come back yet."""
        return bool(self._others) or self._core.has_work

    def flush(self) -> None:
        """Say that no more prompts come soon, so that a static batch need not fill."""
        self._core.flush()

    def step(self) -> list[Completion]:
        """Run one batch of the engine; returns what it finished."""
        finished = self._step()
        others, self._others = self._others, []  # kept where the step is interrupted
        return others + finished

    def _step(self) -> list[Completion]:
        return [finished.completion() for finished in self._core.step()]

    def generate(
        self,
        prompts: Prompt | Iterable[Prompt],
        params: Params = None,
        *,
        progress: bool = True,
    ) -> list[Completion]:
        """Run prompts to their ends and return their completions in the same order.

        They are computed in another order, in which shared prefixes are computed once and long
        outputs begin early.

        >>> llm.generate("The sea is")[0].text
        >>> llm.generate(["The sea is", [504, 5345], {"prompt": "Water boils at"}])
        >>> llm.generate((row.text for row in rows), SamplingParams(temperature=0))
        >>> llm.generate(torch.tensor([[504, 5345], [504, 2314]]))  # a prompt a row

        Args:
            prompts: one prompt, or any iterable of some. Each is a text; a list of chat messages
                (``{"role", "content"}``); token ids as a list, a NumPy array or a torch tensor; or
                a mapping ``{"prompt": …}`` or ``{"prompt_token_ids": …}``.
            params: one for all, or one a prompt; ``None`` is the defaults.
            progress: show a bar on standard error.

        Raises:
            InvalidRequest: there are not as many params as prompts, or what was given as the one
                prompt is none; the message says what it is.
            TokenizerError: the chat template refuses the one prompt's messages.

        A request that cannot run is no exception: its completion has ``error`` and ``error_code``
        set. The same holds for whatever is no prompt in a list of prompts; the others run.
        """
        return self._run(prompts, params, progress, self._encode)

    def chat(
        self,
        messages: Iterable[Message] | Iterable[Iterable[Message]],
        params: Params = None,
        *,
        progress: bool = True,
        **template: Any,
    ) -> list[Completion]:
        """As `generate`, for one chat or several, with arguments for the chat template.

        >>> llm.chat([{"role": "user", "content": "What is the capital of France?"}])[0].text
        >>> llm.chat(chats, SamplingParams(max_tokens=200), enable_thinking=False)

        Args:
            messages: one chat, a list of messages (``{"role", "content"}``), or any iterable of
                some.
            params: one for all, or one a chat; ``None`` is the defaults.
            progress: show a bar on standard error.
            template: as `engine.tokenizer.Tokenizer.encode_chat` takes them: ``tools``,
                ``add_generation_prompt``, ``template``, and what the model's template knows.

        Raises:
            InvalidRequest, TokenizerError: as `generate`.
        """

        def encode(chat: Any) -> _Encoded:
            ids = self._core.tokenizer.encode_chat(read_chat(chat), **template)
            return _Encoded(tuple(ids), continues=False)

        return self._run(messages, params, progress, encode)

    def _run(
        self,
        prompts: Any,
        params: Params,
        progress: bool,
        encode: Callable[[Any], _Encoded],
    ) -> list[Completion]:
        batch = split_prompts(prompts)
        each_params = read_params(params, len(batch.prompts))
        done: dict[str, Completion] = {}
        ids = [""] * len(batch.prompts)
        encoded: dict[int, _Encoded] = {}  # all of them, before any is queued
        for index, prompt in enumerate(batch.prompts):
            try:
                encoded[index] = encode(prompt)
            except (InvalidRequest, TokenizerError) as error:
                if batch.alone:
                    raise
                ids[index] = self._new_id()
                done[ids[index]] = Completion(
                    ids[index], (), (), error=str(error), error_code=error.code
                )
        places = list(encoded)
        all_ids = [each.token_ids for each in encoded.values()]
        for place in self._order(all_ids, [each_params[i] for i in places]):
            index = places[place]
            ids[index] = self._add(encoded[index], each_params[index])
        self._core.flush()
        running = set(ids) - done.keys()
        try:
            for completion in self._drain(running, progress):
                done[completion.request_id] = completion
        except BaseException:
            self._core.cancel(running)
            raise
        return [done[request_id] for request_id in ids]

    def _order(
        self, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
    ) -> list[int]:
        """The order in which prompts are queued: see `engine.prefix_order`."""
        limit, most = self.info.context_length, 2**32 - 1  # ids that are none are refused later
        return depth_first(
            [pack_tokens([min(max(0, token), most) for token in prompt]) for prompt in prompts],
            [
                each.num_generated * (limit if each.max_tokens is None else each.max_tokens)
                for each in params
            ],
            self.info.block_size,
        )

    def _drain(self, ids: set[str], progress: bool) -> Iterator[Completion]:
        """Step until all of ``ids`` have come; they are yielded, the others kept for `step`."""
        from tqdm import tqdm  # comes with tokenizers; not needed to submit and step

        missing, tokens = len(ids), 0
        with tqdm(total=missing, unit="req", disable=not progress, dynamic_ncols=True) as bar:
            while missing:
                finished = self._step()
                ours = [completion for completion in finished if completion.request_id in ids]
                self._others += [c for c in finished if c.request_id not in ids]
                yield from ours
                missing -= len(ours)
                tokens += sum(completion.completion_tokens for completion in ours)
                if progress and ours:
                    bar.update(len(ours))
                    rate = tokens / max(bar.format_dict["elapsed"], 1e-9)
                    bar.set_postfix_str(f"{rate:,.0f} output tok/s", refresh=False)
                if not finished and not self._core.stats().running:
                    sleep(0.001)  # dynamic batching waits for its time-out

    def _encode(self, prompt: Any) -> _Encoded:
        read = read_prompt(prompt)
        if isinstance(read, str):
            return _Encoded(tuple(self._core.tokenizer.encode(read)), continues=True)
        if isinstance(read, tuple):
            return _Encoded(read, continues=True)
        return _Encoded(tuple(self._core.tokenizer.encode_chat(read)), continues=False)
