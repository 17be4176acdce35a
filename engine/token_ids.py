"""Token ids in whatever a user holds them: lists, NumPy arrays, torch tensors. Imports no torch."""

import sys
from collections.abc import Iterable, Mapping
from numbers import Integral, Number
from typing import Any

import numpy as np

from engine.errors import InvalidRequest

_MOST_CHARACTERS = 40
_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


def token_ids(value: Any, param: str = "prompt") -> tuple[int, ...]:
    """Token ids as plain ints. Whether a model has them is not looked at.

    Args:
        value: a list or another iterable of whole numbers, NumPy's too, or an array or tensor of
            one dimension.
        param: what to call it in an error.

    Raises:
        InvalidRequest: it is something else; the message says what.
    """
    if is_array(value) and value.ndim == 1 and _dtype(value) in _INTEGERS:
        return tuple(value.tolist())
    if is_array(value) and (value.ndim != 1 or (len(value) and _dtype(value) != "object")):
        raise InvalidRequest(
            f"{param}: token ids are a list, or an array of whole numbers in one dimension, "
            f"not {shown(value)}.",
            param=param,
        )
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping) or not isinstance(
        value, Iterable
    ):
        raise InvalidRequest(
            f"{param}: token ids are a list of whole numbers, not {shown(value)}.", param=param
        )
    items = tuple(value)
    if {*map(type, items)} <= {int}:
        return items
    return tuple(_token_id(item, index, param) for index, item in enumerate(items))


def _token_id(item: Any, index: int, param: str) -> int:
    plain = item.item() if is_array(item) and item.ndim == 0 else item
    if isinstance(plain, Integral) and not isinstance(plain, bool):
        return int(plain)
    raise InvalidRequest(
        f"{param}: token ids are whole numbers, but item {index} is {shown(plain)}.", param=param
    )


def is_array(value: object) -> bool:
    """Whether it is a NumPy array or a torch tensor."""
    if isinstance(value, np.ndarray):
        return True
    torch = sys.modules.get("torch")  # nobody has a tensor without it
    return torch is not None and isinstance(value, torch.Tensor)


def holds_numbers(array: Any) -> bool:
    """Whether a NumPy array or a tensor is one of numbers, and not of texts or objects."""
    return not isinstance(array, np.ndarray) or array.dtype.kind in "biufc"


def is_number(value: Any) -> bool:
    """Whether it is one number, a bool or an array without dimensions among them."""
    return isinstance(value, Number | np.bool_) or (is_array(value) and value.ndim == 0)


def shown(value: Any) -> str:
    """What a user gave, for a message: its beginning and its type."""
    if value is None:
        return "None"
    if is_array(value):
        return f"an array of {_dtype(value)} of shape {tuple(value.shape)}"
    text = repr(value)
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}…"
    return f"{text} ({type(value).__name__})"


def _dtype(array: Any) -> str:
    return str(array.dtype).removeprefix("torch.")
