"""The tokenizer of one model."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from engine.errors import TokenizerError
from engine.tokenizer.bytelevel import spelled_bytes
from engine.tokenizer.chat import ChatTemplates
from engine.tokenizer.fill import find_fill_tokens

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_BOUNDARY = "\u2581"  # SentencePiece's mark for a space


class Tokenizer:
    """Encodes, decodes and renders chats. Safe to use from several threads.

    Args:
        backend: the tokenizer of the ``tokenizers`` library; it now belongs to this object.
        special_tokens: role → token, such as ``{"eos_token": "<|im_end|>"}``; what chat
            templates may name.
        chat_templates: name → Jinja source; the usual one is ``default``.

    Attributes:
        byte_level: every token stands for fixed bytes, whatever is around it (byte-level BPE).
        fill_tokens: for filling in the middle, where the model has them.
        special_ids: the ids that ``skip_special_tokens`` leaves out.
        vocab_size: number of tokens, added ones included. The model's output may be wider.
        bos_token_id: beginning of sequence, or ``None``.
        eos_token_id: end of sequence, or ``None``.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str],
        chat_templates: Mapping[str, str],
    ) -> None:
        # A limit or padding stored with a checkpoint was its trainer's, not ours.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._chat = ChatTemplates(chat_templates, special_tokens)
        self._bytes: dict[int, bytes] = {}
        self.fill_tokens = find_fill_tokens(backend, special_tokens)
        self.byte_level = _decoder_type(backend) == "ByteLevel"
        self.special_ids: frozenset[int] = frozenset(
            token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.special
        )
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.bos_token_id = self._id_of(special_tokens.get("bos_token"))
        self.eos_token_id = self._id_of(special_tokens.get("eos_token"))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text. Special tokens written out in it become their own ids.

        Args:
            text: what to encode.
            add_special_tokens: add what the model wants around a text, such as a first token.

        Raises:
            TokenizerError: the text is not valid Unicode (it has lone surrogates).
        """
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[list[int]]:
        """`encode` for many texts at once, on all cores."""
        try:
            encodings = self._backend.encode_batch_fast(
                list(texts), add_special_tokens=add_special_tokens
            )
        except TypeError as problem:
            raise TokenizerError("A text is no string, or holds lone surrogates.") from problem
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids. Bytes that are no UTF-8 become U+FFFD; unknown ids are left out."""
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

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

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self._backend.token_to_id(token)

    def _spell(self, token_id: int) -> bytes:
        token = self.id_to_token(token_id) or ""
        if self.byte_level:
            return spelled_bytes(token)
        if byte := _BYTE_TOKEN.fullmatch(token):
            return bytes.fromhex(byte[1])
        return token.replace(_WORD_BOUNDARY, " ").encode("utf-8")


def _decoder_type(backend: tokenizers.Tokenizer) -> str | None:
    """The kind of decoder, such as ``ByteLevel``; that of its only part where it is a sequence."""
    if backend.decoder is None:
        return None
    state = json.loads(backend.decoder.__getstate__())
    while state["type"] == "Sequence" and len(state["decoders"]) == 1:
        state = state["decoders"][0]
    kind: str = state["type"]
    return kind
