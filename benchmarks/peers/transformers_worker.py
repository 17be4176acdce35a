"""transformers: one request at a time, bfloat16."""

import sys
from collections.abc import Iterator

import torch
import transformers
from serve import Item, serve


def main() -> None:
    """Load the model in the folder given, and serve."""
    torch.set_num_threads(int(sys.argv[2]))
    model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
    model.eval()

    def run(items: list[Item], shared: int) -> Iterator[int]:
        for item in items:
            with torch.inference_mode():
                out = model.generate(
                    torch.tensor([item.prompt]),
                    attention_mask=torch.ones(1, len(item.prompt), dtype=torch.int64),
                    max_new_tokens=item.output_tokens,
                    min_new_tokens=item.output_tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
            yield out.shape[1] - len(item.prompt)

    serve(transformers.__version__, run)


if __name__ == "__main__":
    main()
