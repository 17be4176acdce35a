"""Tidemill's engine with its default settings; a third argument gives others as JSON."""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import version

from serve import Item, serve

from engine import LLM, SamplingParams
from engine.prefix_order import depth_first, pack_tokens


def main() -> None:
    """Load the model named, and serve."""
    settings = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    llm = LLM(sys.argv[1], threads=int(sys.argv[2]), **settings)
    print(llm.info.description, file=sys.stderr)

    def run(items: list[Item], shared: int) -> Iterator[int]:
        # As `LLM.generate` does, which returns only once all are finished.
        prompts = [pack_tokens(item.prompt) for item in items]
        outputs = [item.output_tokens for item in items]
        for index in depth_first(prompts, outputs, llm.info.block_size):
            item = items[index]
            params = SamplingParams(temperature=0, max_tokens=item.output_tokens, ignore_eos=True)
            llm.submit(item.prompt, params)
        llm.flush()
        while llm.has_work:
            for completion in llm.step():
                yield completion.completion_tokens

    serve(version("tidemill"), run)


if __name__ == "__main__":
    main()
