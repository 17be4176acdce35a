"""A small language model that is trained where it is needed, so that none has to travel."""

import json
from pathlib import Path
from time import monotonic

import tokenizers
import torch
import transformers
from texts import docstrings
from tokenizers import decoders, models, pre_tokenizers, trainers

_VOCAB = 4096
_LENGTH, _ROWS = 256, 32
_PEAK = 1e-3
_END = "<|end|>"


def train(folder: str, device: str, *, seconds: float) -> str:
    """Train a Llama on docstrings for a while, and save it with its tokenizer.

    Args:
        folder: where it goes.
        device: where it is trained; off a GPU it is a toy after a few steps.
        seconds: of training. The learning rate falls to nothing at their end.

    Returns:
        A line on what came of it.
    """
    torch.manual_seed(0)
    toy = device != "cuda"
    texts = list(docstrings())
    tokenizer = _tokenizer(texts[:200] if toy else texts)
    tokenizer.save(str(Path(folder) / "tokenizer.json"))
    (Path(folder) / "tokenizer_config.json").write_text(json.dumps({"eos_token": _END}))
    encoded = tokenizer.encode_batch(texts[:200] if toy else texts)
    stream = torch.tensor([token for one in encoded for token in (*one.ids, 0)])
    config = transformers.LlamaConfig(
        vocab_size=_VOCAB,
        hidden_size=64 if toy else 512,
        intermediate_size=128 if toy else 1536,
        num_hidden_layers=2 if toy else 8,
        num_attention_heads=2 if toy else 8,
        num_key_value_heads=1 if toy else 4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    trained = transformers.LlamaForCausalLM(config)
    model: torch.nn.Module = trained
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    began, steps, loss = monotonic(), 0, torch.zeros(())
    rows, most = (2, 3) if toy else (_ROWS, 10**6)
    while steps < most and (passed := (monotonic() - began) / seconds) < 1:
        starts = torch.randint(len(stream) - _LENGTH, (rows,), generator=generator)
        batch = torch.stack([stream[start : start + _LENGTH] for start in starts]).to(device)
        for group in optimizer.param_groups:
            group["lr"] = _PEAK * min(1.0, steps / 50) * (1 - passed)
        with torch.autocast(device, torch.bfloat16):
            loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    trained.save_pretrained(folder)
    count = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"a Llama of {count / 1e6:.1f}M parameters, trained for {steps} steps on "
        f"{len(stream):,} tokens of docstrings, to a loss of {float(loss):.2f}"
    )


def _tokenizer(texts: list[str]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
