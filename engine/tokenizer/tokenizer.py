"""The tokenizer of one model."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tokenizers

from engine.errors import TokenizerError
from engine.tokenizer.bytelevel import spelled_bytes
from engine.tokenizer.chat import ChatTemplates
from engine.tokenizer.controls import ControlTokens
from engine.tokenizer.fill import find_fill_tokens
from engine.tokenizer.guard import Guard, RenderedChat

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_BOUNDARY = "\u2581"  # SentencePiece's mark for a space


class Tokenizer:
    """Encodes, decodes and renders chats. Safe to use from several threads.

    Args:
        backend: the tokenizer of the ``tokenizers`` library; it now belongs to this object.
        special_tokens: role → token, such as ``{"eos_token": "<|im_end|>"}``; what chat
            templates may name.
        chat_templates: name → Jinja source; the usual one is ``default``.
        end_tokens: tokens that end a turn, beside the one whose role is ``eos_token``.
        control_tokens_in_messages: whether control tokens that messages spell out are ones. Else
            only a chat template can write them, and in messages they are text.

    Attributes:
        byte_level: every token stands for fixed bytes, whatever is around it (byte-level BPE).
        fill_tokens: for filling in the middle, where the model has them.
        special_ids: the ids that ``skip_special_tokens`` leaves out.
        vocab_size: number of tokens, added ones included. The model's output may be wider.
        bos_token_id: beginning of sequence, or ``None``.
        eos_token_id: end of sequence, or ``None``.
        end_token_ids: every token that ends an answer, as far as the tokenizer knows.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str],
        chat_templates: Mapping[str, str],
        end_tokens: Iterable[str] = (),
        control_tokens_in_messages: bool = False,
    ) -> None:
        # A limit or padding stored with a checkpoint was its trainer's, not ours.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        controls = ControlTokens(backend, chat_templates.values())
        self._guard = Guard(backend, controls.spellings)
        self._chat = ChatTemplates(
            chat_templates, special_tokens, None if control_tokens_in_messages else controls
        )
        self._bytes: dict[int, bytes] = {}
        self.fill_tokens = find_fill_tokens(backend, special_tokens)
        steps = _decoder_steps(backend)
        self.byte_level = steps == ["ByteLevel"]
        self._strips = not {"Metaspace", "Strip"}.isdisjoint(steps)
        self.special_ids: frozenset[int] = frozenset(
            token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special
        )
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.bos_token_id = self._id_of(special_tokens.get("bos_token"))
        self.eos_token_id = self._id_of(special_tokens.get("eos_token"))
        self._lead = _lead(backend)
        ends = [self.eos_token_id, *map(self._id_of, end_tokens)]
        self.end_token_ids = tuple(dict.fromkeys(end for end in ends if end is not None))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text. Special tokens written out in it become their own ids.

        In a rendered chat only those that the template wrote do: see `RenderedChat`.

        Args:
            text: what to encode.
            add_special_tokens: add what the model wants around a text, such as a first token. A
                first token that the text begins with itself is not doubled.

        Raises:
            TokenizerError: the text is not valid Unicode (it has lone surrogates), or the
                vocabulary has no token for a part of it, nor one for what is unknown.
        """
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[list[int]]:
        """`encode` for many texts at once, on all cores."""
        guarded = {i: text for i, text in enumerate(texts) if isinstance(text, RenderedChat)}
        try:
            found = iter(
                self._backend.encode_batch_fast(
                    [text for text in texts if not isinstance(text, RenderedChat)],
                    add_special_tokens=add_special_tokens,
                )
            )
            chats = iter(
                self._guard.encode(list(guarded.values()), add_special_tokens) if guarded else ()
            )
        except TypeError as problem:
            raise TokenizerError("A text is no string, or holds lone surrogates.") from problem
        except Exception as problem:  # the library raises nothing more precise
            raise TokenizerError(f"A text cannot be encoded: {problem}") from problem
        ids = [next(chats) if i in guarded else next(found).ids for i in range(len(texts))]
        return [self._with_one_lead(each) for each in ids] if add_special_tokens else ids

    def decode(
        self,
        ids: Sequence[int],
        skip_special_tokens: bool = True,
        *,
        after: Sequence[int] = (),
    ) -> str:
        """Text of token ids. Bytes that are no UTF-8 become U+FFFD; unknown ids are left out.

        Args:
            ids: the tokens.
            skip_special_tokens: leave special tokens out.
            after: tokens that the text goes on from, as `context_of` gives them. Their own text
                is not among it. Without them, some tokenizers leave out a first space.
        """
        if not after:
            return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        before = self.decode(after, skip_special_tokens)
        return self.decode([*after, *ids], skip_special_tokens)[len(before) :]

    def context_of(self, prompt: Sequence[int]) -> tuple[int, ...]:
        """The end of a prompt, where the text of the tokens after it depends on it.

        It does with decoders of SentencePiece's kind: a token has a space of its own, which they
        leave out at the beginning.
        """
        if not self._strips:
            return ()
        for token_id in reversed(prompt):
            if token_id in self.special_ids or self.is_byte_token(token_id):
                continue
            if self.decode([token_id]):
                return (token_id,)
        return ()

    def text_of(self, ids: Sequence[int]) -> str:
        """`decode`, with special tokens as the vocabulary spells them."""
        return self.decode(ids, skip_special_tokens=False)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for; empty for an unknown id.

        For a tokenizer that is not ``byte_level`` a token's text may depend on its neighbours;
        then these are the bytes it has in the middle of a text.
        """
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._spell(token_id)
        return known

    def id_to_token(self, token_id: int) -> str | None:
        """The token as the vocabulary spells it, or ``None`` for an unknown id."""
        return self._backend.id_to_token(token_id)

    def is_byte_token(self, token_id: int) -> bool:
        """Whether it stands for one byte that is read together with the bytes around it."""
        return not self.byte_level and bool(_BYTE_TOKEN.fullmatch(self.id_to_token(token_id) or ""))

    @property
    def has_chat_template(self) -> bool:
        """Whether the model came with a chat template."""
        return bool(self._chat)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        template: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Messages → the prompt the model was trained on. See `ChatTemplates.render`."""
        return self._chat.render(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            template=template,
            **kwargs,
        )

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        template: str | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """`render_chat`, encoded. The template writes the special tokens itself."""
        prompt = self.render_chat(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            template=template,
            **kwargs,
        )
        return self.encode(prompt, add_special_tokens=False)

    def _with_one_lead(self, ids: list[int]) -> list[int]:
        size = len(self._lead)
        return ids[size:] if size and ids[size : 2 * size] == self._lead else ids

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self._backend.token_to_id(token)

    def _spell(self, token_id: int) -> bytes:
        token = self.id_to_token(token_id) or ""
        if self.byte_level:
            return spelled_bytes(token)
        if byte := _BYTE_TOKEN.fullmatch(token):
            return bytes.fromhex(byte[1])
        return token.replace(_WORD_BOUNDARY, " ").encode("utf-8")


def _decoder_steps(backend: tokenizers.Tokenizer) -> list[str]:
    """The kinds of its decoder's steps, such as ``ByteLevel``, in order."""

    def kinds(state: dict[str, Any]) -> Iterator[str]:
        if state["type"] == "Sequence":
            for step in state["decoders"]:
                yield from kinds(step)
        else:
            yield state["type"]

    return (
        [] if backend.decoder is None else list(kinds(json.loads(backend.decoder.__getstate__())))
    )


def _lead(backend: tokenizers.Tokenizer) -> list[int]:
    """The tokens that the tokenizer puts before a text."""
    if backend.post_processor is None:
        return []
    word = tokenizers.Tokenizer(tokenizers.models.WordLevel({"": 0}, unk_token="")).encode("a")
    whole = backend.post_processor.process(word)
    return list(whole.ids[: whole.special_tokens_mask.index(0)])
