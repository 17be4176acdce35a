"""llama.cpp through its Python bindings: Q4_1 as it is in the file, up to 64 sequences at once.

The library has no scheduler, so this is one: free places are filled at once, prompts go through in
batches of 512 beside the running sequences' next tokens, and prompts that begin with the same
tokens get them by copying the cache's cells of the first one.
"""

import ctypes
import sys
from collections import deque
from collections.abc import Iterator

import llama_cpp as api
import numpy as np
from serve import Item, serve

PLACES, BATCH = 64, 512
CELLS = 65_536


class Context:
    """A model and the batch that it is called with."""

    def __init__(self, path: str, threads: int) -> None:
        api.llama_backend_init()
        quiet = api.llama_log_callback(lambda level, text, data: None)
        self._quiet = quiet  # called for as long as the library lives
        api.llama_log_set(quiet, ctypes.c_void_p(0))
        settings = api.llama_model_default_params()
        self._model = api.llama_model_load_from_file(path.encode(), settings)
        options = api.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = CELLS, BATCH, BATCH
        options.n_seq_max = PLACES + 1
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = True
        self._context = api.llama_init_from_model(self._model, options)
        self.memory = api.llama_get_memory(self._context)
        self._batch = api.llama_batch_init(BATCH, 0, 1)
        self._vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        """Compute (token, position, place, wanted) rows; the next token by place where wanted."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for index, (token, position, place, wanted) in enumerate(rows):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, place
            batch.logits[index] = wanted
        if api.llama_decode(self._context, batch):
            raise SystemExit("llama_decode failed")
        chosen = {}
        for index, (_, _, place, wanted) in enumerate(rows):
            if wanted:
                scores = api.llama_get_logits_ith(self._context, index)
                chosen[place] = int(np.ctypeslib.as_array(scores, (self._vocab,)).argmax())
        return chosen


class Sequence:
    """A request in a place."""

    def __init__(self, item: Item, start: int) -> None:
        self.item = item
        self.todo = deque(item.prompt[start:])
        self.position = start
        self.made = 0


def main() -> None:
    """Load the GGUF file given, and serve."""
    context = Context(sys.argv[1], int(sys.argv[2]))

    def run(items: list[Item], shared: int) -> Iterator[int]:
        api.llama_memory_clear(context.memory, True)
        waiting, running = deque(items), dict[int, Sequence]()
        free, known = list(range(PLACES)), PLACES
        prefix: list[int] = []
        while waiting or running:
            while free and waiting:
                item = waiting[0]
                start = 0
                if shared:
                    if item.prompt[:shared] != prefix:
                        prefix = item.prompt[:shared]
                        api.llama_memory_seq_rm(context.memory, known, -1, -1)
                        for begin in range(0, shared, BATCH):
                            part = prefix[begin : begin + BATCH]
                            rows = [(t, begin + i, known, False) for i, t in enumerate(part)]
                            context.decode(rows)
                    start = shared
                waiting.popleft()
                place = free.pop()
                if start:
                    api.llama_memory_seq_cp(context.memory, known, place, 0, start)
                running[place] = Sequence(item, start)
            rows: list[tuple[int, int, int, bool]] = []
            for place, sequence in sorted(running.items(), key=lambda kv: len(kv[1].todo)):
                while sequence.todo and len(rows) < BATCH:
                    token = sequence.todo.popleft()
                    rows.append((token, sequence.position, place, not sequence.todo))
                    sequence.position += 1
            for place, token in context.decode(rows).items():
                sequence = running[place]
                sequence.todo.append(token)
                sequence.made += 1
                if sequence.made == sequence.item.output_tokens:
                    yield sequence.made
                    del running[place]
                    free.append(place)
                    api.llama_memory_seq_rm(context.memory, place, -1, -1)

    serve("llama-cpp-python " + api.__version__, run)


if __name__ == "__main__":
    main()
