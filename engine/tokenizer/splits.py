"""How byte-level tokenizers cut text into words before merging.

A tokenizer's merges were learned on words cut in one way; another cut gives other ids. GGUF files
name the way in ``tokenizer.ggml.pre``. The patterns are those of the models' own tokenizers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split


@dataclass(frozen=True, slots=True)
class Splits:
    """One way to cut.

    Attributes:
        pre_tokenizer: makes the cutter, the step from bytes to their spelling included.
        bos: a text starts with the first-token unless the file says otherwise.
        ignore_merges: a word that is a token itself becomes that token without merging.
        nfc: text is brought into Unicode's composed form first.
    """

    pre_tokenizer: Callable[[], PreTokenizer]
    bos: bool = False
    ignore_merges: bool = False
    nfc: bool = False


def _gpt2() -> PreTokenizer:
    return ByteLevel(add_prefix_space=False, use_regex=True)


def _digits_then_gpt2() -> PreTokenizer:
    return Sequence([Digits(individual_digits=True), _gpt2()])


def _pattern(*alternatives: str) -> Callable[[], PreTokenizer]:
    def make() -> PreTokenizer:
        return Sequence(
            [
                Split(Regex("|".join(alternatives)), behavior="isolated"),
                ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    return make


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_PUNCTUATION_OR_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
# Letters with marks; a word starts anew at a capital.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_WORD = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*",
)

_GPT2 = Splits(_gpt2)
_SMOLLM = Splits(_digits_then_gpt2)
_LLAMA3 = Splits(
    _pattern(_CONTRACTIONS, _WORD, r"\p{N}{1,3}", _PUNCTUATION, _SPACES),
    bos=True,
    ignore_merges=True,
)
_QWEN2 = Splits(_pattern(_CONTRACTIONS, _WORD, r"\p{N}", _PUNCTUATION, _SPACES), nfc=True)
_TEKKEN = Splits(
    _pattern(*_CASED_WORD, r"\p{N}", _PUNCTUATION_OR_SLASH, _SPACES),
    bos=True,
    ignore_merges=True,
)

SPLITS: Mapping[str, Splits] = MappingProxyType(
    {
        "default": _GPT2,
        "gpt-2": _GPT2,
        "smollm": _SMOLLM,
        "starcoder": _SMOLLM,
        "refact": _SMOLLM,
        "codeshell": _SMOLLM,
        "llama3": _LLAMA3,
        "llama-v3": _LLAMA3,
        "llama-bpe": _LLAMA3,
        "qwen2": _QWEN2,
        "deepseek-r1-qwen": _QWEN2,
        "tekken": _TEKKEN,
    }
)
