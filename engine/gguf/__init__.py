"""GGUF checkpoints: what is in the file, as memory-mapped views, and the numbers it encodes."""

from engine.gguf.groups import Groups, has_groups, read_groups
from engine.gguf.quants import DECODABLE, dequantize
from engine.gguf.reader import GGUFFile, GGUFTensor
from engine.gguf.types import LAYOUT, BlockLayout, GGMLType

__all__ = [
    "DECODABLE",
    "LAYOUT",
    "BlockLayout",
    "GGMLType",
    "GGUFFile",
    "GGUFTensor",
    "Groups",
    "dequantize",
    "has_groups",
    "read_groups",
]
