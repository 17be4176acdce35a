"""OpenVINO GenAI: its continuous batching pipeline, 8-bit weights, prefix cache on."""

import sys
from collections.abc import Iterator

import numpy as np
import openvino
import openvino_genai as genai
from serve import Item, serve


def main() -> None:
    """Load the model in the folder given, and serve."""
    config = genai.SchedulerConfig()
    config.cache_size = 4
    config.enable_prefix_caching = True
    config.max_num_seqs = 128
    pipeline = genai.ContinuousBatchingPipeline(
        sys.argv[1], config, "CPU", {"INFERENCE_NUM_THREADS": int(sys.argv[2])}
    )

    def run(items: list[Item], shared: int) -> Iterator[int]:
        handles = {}
        for number, item in enumerate(items):
            settings = genai.GenerationConfig()
            settings.max_new_tokens = settings.min_new_tokens = item.output_tokens
            settings.ignore_eos = True
            settings.do_sample = False
            prompt = openvino.Tensor(np.array([item.prompt], dtype=np.int64))
            handles[number] = pipeline.add_request(number, prompt, settings)
        while pipeline.has_non_finished_requests():
            pipeline.step()
            ended = [
                number
                for number, handle in handles.items()
                if handle.get_status() != genai.GenerationStatus.RUNNING
            ]
            for number in ended:
                yield len(handles.pop(number).read_all()[0].generated_ids)

    serve(genai.get_version(), run)


if __name__ == "__main__":
    main()
