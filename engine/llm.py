"""The engine from Python: ``LLM("smollm2").generate(prompts, params)``."""

from collections.abc import Iterator, Mapping, Sequence
from time import sleep
from typing import Any

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.errors import InvalidRequest
from engine.info import EngineInfo
from engine.params import SamplingParams
from engine.prefix_order import depth_first, pack_tokens
from engine.requests import Completion, EngineStats, Request
from engine.tokenizer import Tokenizer

Message = Mapping[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]


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
        """Queue one prompt and return its request id.

        Raises:
            InvalidRequest: the prompt is neither text, chat messages nor token ids.
        """
        encoded = self._encode(prompt)
        return self._add(prompt, encoded, params or SamplingParams(), salt)

    def _add(
        self, prompt: Prompt, encoded: tuple[int, ...], params: SamplingParams, salt: str = ""
    ) -> str:
        request_id = str(self._next_id)
        self._next_id += 1
        continues = len(prompt) == 0 or not isinstance(prompt[0], Mapping)
        self._core.add(Request(request_id, encoded, params, salt, continues))
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
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = True,
    ) -> list[Completion]:
        """Run prompts to their ends and return their completions in the same order.

        They are computed in another order, in which shared prefixes are computed once and long
        outputs begin early.

        Args:
            prompts: one prompt or several; each is a text, a list of chat messages
                (``{"role", "content"}``) or a list of token ids.
            params: one for all, or one a prompt.
            progress: show a bar on standard error.

        Raises:
            InvalidRequest: there are not as many params as prompts, or a prompt is of no known
                kind.
            TokenizerError: the chat template refuses a prompt's messages.

        A request that cannot run is no exception: its completion has ``error`` set.
        """
        batch = _as_batch(prompts)
        if params is None or isinstance(params, SamplingParams):
            params = [params or SamplingParams()] * len(batch)
        if len(params) != len(batch):
            raise InvalidRequest(
                f"There are {len(batch)} prompts and {len(params)} params.", param="params"
            )
        encoded = [self._encode(prompt) for prompt in batch]  # all of them, before any is queued
        ids = dict.fromkeys(range(len(batch)), "")
        for index in self._order(encoded, params):
            ids[index] = self._add(batch[index], encoded[index], params[index])
        self._core.flush()
        done: dict[str, Completion] = {}
        try:
            for completion in self._drain(set(ids.values()), progress):
                done[completion.request_id] = completion
        except BaseException:
            self._core.cancel(ids.values())
            raise
        return [done[request_id] for request_id in ids.values()]

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

    def _encode(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return tuple(self._core.tokenizer.encode(prompt))
        items = list(prompt) if isinstance(prompt, Sequence) else [None]
        if all(isinstance(item, int) for item in items):
            return tuple(item for item in items if isinstance(item, int))
        if all(isinstance(item, Mapping) for item in items):
            messages = [item for item in items if isinstance(item, Mapping)]
            return tuple(self._core.tokenizer.encode_chat(messages))
        raise InvalidRequest(
            "A prompt is a text, a list of chat messages or a list of token ids.", param="prompt"
        )


def _as_batch(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or several: a list of ints or of messages is one.

    Both are sequences, so the first item tells them apart; a type checker cannot follow that.
    """
    if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int | Mapping)):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]
