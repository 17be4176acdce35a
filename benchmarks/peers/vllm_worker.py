"""vLLM's CPU build: bfloat16, its own scheduling, prefix cache on.

As it comes, its engine is a process beside this one and leaves a core to it. With ``bind`` as a
third argument its threads take all cores; ``VLLM_ENABLE_V1_MULTIPROCESSING=0`` runs it in this
process.
"""

import os
import sys
from collections.abc import Iterator

from serve import Item, serve


def main() -> None:
    """Load the model in the folder given, and serve."""
    threads = int(sys.argv[2])
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    if "bind" in sys.argv[3:]:
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import vllm

    engine = vllm.LLM(
        sys.argv[1],
        dtype="bfloat16",
        max_model_len=8192,
        max_num_seqs=128,
        enable_prefix_caching=True,
        disable_log_stats=True,
        seed=0,
    ).llm_engine
    names = iter(range(10**9))

    def run(items: list[Item], shared: int) -> Iterator[int]:
        for item in items:
            settings = vllm.SamplingParams(
                temperature=0, max_tokens=item.output_tokens, ignore_eos=True
            )
            prompt = vllm.inputs.TokensPrompt(prompt_token_ids=item.prompt)
            engine.add_request(str(next(names)), prompt, settings)
        while engine.has_unfinished_requests():
            for answer in engine.step():
                if answer.finished:
                    yield len(answer.outputs[0].token_ids)

    serve(vllm.__version__, run)


if __name__ == "__main__":
    main()
