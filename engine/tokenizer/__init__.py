"""Text ↔ token ids, chat templates, and text that appears token by token. Free of torch."""

from engine.tokenizer.detokenizer import IncrementalDetokenizer
from engine.tokenizer.loading import load_tokenizer
from engine.tokenizer.tokenizer import Tokenizer

__all__ = ["IncrementalDetokenizer", "Tokenizer", "load_tokenizer"]
