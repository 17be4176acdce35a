"""Filling in the middle: the tokens that mark what comes before and after the text to write.

From "Efficient Training of Language Models to Fill in the Middle" (Bavarian et al. 2022), in the
order of prefix, suffix, middle, which the models that have such tokens were trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tokenizers

# By role, as checkpoints and GGUF files (older and newer keys) name them.
_ROLES = (
    ("prefix_token", "suffix_token", "middle_token"),
    ("fim_prefix_token", "fim_suffix_token", "fim_middle_token"),
)
_SPELLINGS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),  # Code Llama
    ("<PRE>", "<SUF>", "<MID>"),
    # DeepSeek; its bars are full-width.
    ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
)
# What a model writes when the middle is done, beside its end of sequence.
_ENDS = (
    "<EOT>",
    "\u2581<EOT>",
    "<|endoftext|>",
    "<|fim_pad|>",
    "<fim_pad>",
    "<|file_sep|>",
    "<file_sep>",
    "<|file_separator|>",
)
# Ahead of a suffix, so that no space of the tokenizer's own is put there (as Code Llama has it).
_MARK = "\u263a"


@dataclass(frozen=True, slots=True)
class FillTokens:
    """A model's tokens for filling in the middle.

    Attributes:
        prefix, suffix, middle: they stand ahead of the text before, the text after, and the answer.
        start: what the tokenizer puts ahead of every text.
        ends: tokens that end the answer, beside the model's own.
        mark: a text put ahead of the suffix before it is encoded; "" where none is needed.
        mark_ids: its token ids, which `arrange` drops.
    """

    prefix: int
    suffix: int
    middle: int
    start: tuple[int, ...]
    ends: tuple[int, ...]
    mark: str
    mark_ids: tuple[int, ...]

    def arrange(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """The prompt: its text before and, encoded behind `mark`, its text after.

        Neither has what the tokenizer adds to a text; where ``before`` begins with it all the same,
        it stays in front.
        """
        count = len(self.mark_ids)
        if tuple(after[:count]) == self.mark_ids:
            after = after[count:]
        if self.start and tuple(before[: len(self.start)]) == self.start:
            before = before[len(self.start) :]
        return [*self.start, self.prefix, *before, self.suffix, *after, self.middle]


def find_fill_tokens(
    backend: tokenizers.Tokenizer, special_tokens: Mapping[str, str]
) -> FillTokens | None:
    """A tokenizer's tokens for filling in the middle; ``None`` where it has none.

    Args:
        backend: the tokenizer.
        special_tokens: role → token.
    """
    id_of: Callable[[str], int | None] = backend.token_to_id
    for spelled in (*(map(_named(special_tokens), roles) for roles in _ROLES), *_SPELLINGS):
        prefix, suffix, middle = map(id_of, spelled)
        if prefix is None or suffix is None or middle is None:
            continue
        first = id_of(_named(special_tokens)("bos_token"))
        added = tuple(backend.encode("").ids[:1])
        # Byte-level tokenizers put no space ahead of a text; SentencePiece's fall back on bytes.
        mark = _MARK if getattr(backend.model, "byte_fallback", False) else ""
        return FillTokens(
            prefix,
            suffix,
            middle,
            start=added if added == (first,) else (),
            ends=tuple(end for end in map(id_of, _ENDS) if end is not None),
            mark=mark,
            mark_ids=tuple(backend.encode(mark, add_special_tokens=False).ids),
        )
    return None


def _named(special_tokens: Mapping[str, str]) -> Callable[[str], str]:
    return lambda role: special_tokens.get(role, "")
