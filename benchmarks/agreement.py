"""How many greedy tokens agree with transformers on the embedded model, over varied prompts.

    python benchmarks/agreement.py
    python benchmarks/agreement.py --dtype bfloat16 --tokens 32

transformers reads the same GGUF file with its own loader and runs in float32, one prompt at a time.
Ours runs all prompts as one batch. For a text that differs the first differing token is shown, with
how far apart the two candidates were for transformers: a difference of rounding shows as a gap near
zero.
"""

import argparse
import os
import warnings
from dataclasses import dataclass

import torch

from engine import LLM, SamplingParams
from engine.catalog import resolve

TASKS = (
    "What is the capital of {}?",
    "Write one sentence about {}.",
    "List three facts about {}.",
    "Translate to French: I like {}.",
    "Explain {} to a child.",
)
TOPICS = (
    "France",
    "the sea",
    "binary search",
    "Zażółć gęślą jaźń",
    "1, 1, 2, 3, 5, 8",
    "photosynthesis",
    "a haiku\nin two lines",
    "日本の歴史",
    "def f(x): return x**2",
    "love 🙂",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two answers part: the position, both tokens there, and how far apart they were."""

    position: int
    theirs: str
    ours: str
    gap: float


def prompts() -> list[str]:
    """Fifty user messages: short and odd, in several scripts."""
    return [task.format(topic) for task in TASKS for topic in TOPICS]


def ask_transformers(ids: list[list[int]], tokens: int) -> tuple[list[list[int]], torch.nn.Module]:
    """Greedy answers of transformers, one prompt at a time, and its model."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    from transformers import AutoModelForCausalLM

    files = resolve("smollm2")
    assert files.gguf is not None
    model = AutoModelForCausalLM.from_pretrained(
        files.folder, gguf_file=files.gguf.name, dtype=torch.float32
    )
    answers = []
    for prompt in ids:
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        answers.append(out[0, len(prompt) :].tolist())
    return answers, model


def first_difference(
    prompt: list[int], theirs: list[int], ours: list[int], model: torch.nn.Module, llm: LLM
) -> Difference | None:
    """The first position where the answers differ, judged by transformers' own logits."""
    for position, (a, b) in enumerate(zip(theirs, ours, strict=False)):
        if a != b:
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + theirs[:position]])).logits[0, -1]
            gap = torch.log_softmax(logits.float(), dim=-1)
            names = (llm.tokenizer.decode([token]) for token in (a, b))
            return Difference(position, *names, (gap[a] - gap[b]).item())
    return None


def main() -> None:
    """Run both and print the count, and every difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=48)
    args = parser.parse_args()
    llm = LLM("smollm2", device="cpu", dtype=args.dtype)
    texts = prompts()
    ids = [llm.tokenizer.encode_chat([{"role": "user", "content": text}]) for text in texts]
    params = SamplingParams(temperature=0, max_tokens=args.tokens)
    ours = [list(c.outputs[0].token_ids) for c in llm.generate(ids, params)]
    theirs, model = ask_transformers(ids, args.tokens)
    equal = agreed = 0
    for text, prompt, a, b in zip(texts, ids, theirs, ours, strict=True):
        difference = first_difference(prompt, a, b, model, llm)
        equal += a == b
        agreed += difference.position if difference else min(len(a), len(b))
        if difference is not None:
            print(
                f"{text!r}: token {difference.position} is {difference.theirs!r} for transformers, "
                f"{difference.ours!r} here; transformers has them {difference.gap:.4f} apart"
            )
    total = sum(map(len, theirs))
    print(
        f"{args.dtype}: {equal} of {len(texts)} texts equal; "
        f"{agreed} of {total} tokens before a first difference"
    )


if __name__ == "__main__":
    main()
