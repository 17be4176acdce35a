"""Prepared weights of one model: those of an earlier start, or kept for a later one."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from engine.catalog import ModelFiles
from engine.prepared.file import Contents, Damaged, read
from engine.prepared.fingerprint import fingerprint
from engine.prepared.folder import SUFFIX, weights_folder
from engine.prepared.keeper import Keeper

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where the prepared weights of one model are kept.

    Attributes:
        files, facts: what they follow from; see `engine.prepared.fingerprint`.
        fingerprint: of these, before the model's files were read.
    """

    files: ModelFiles
    facts: tuple[object, ...]
    fingerprint: str

    @classmethod
    def of(cls, files: ModelFiles, facts: tuple[object, ...]) -> Self | None:
        """``None`` where nothing can be kept; see `engine.prepared.fingerprint`."""
        found = fingerprint(files, facts)
        return None if found is None else cls(files, facts, found)

    def read(self, threads: int) -> Contents | None:
        """What was kept, read by so many threads; ``None`` where nothing was, or it is damaged.

        What cannot be read is removed.
        """
        place = weights_folder()
        if place is None:
            return None
        path = place / f"{self.fingerprint}{SUFFIX}"
        try:
            contents = read(path, self.fingerprint, threads)
        except FileNotFoundError:
            return None
        except (Damaged, OSError) as error:
            log.debug("Kept weights are not used, %s: %s", path, error)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # when it was last used
        return contents

    def keep(self, tensors: Mapping[str, Tensor], form: Mapping[str, Any]) -> None:
        """Have a thread write these, unless the model's files changed while they were read.

        Args:
            tensors: by name, contiguous; nobody changes them any more.
            form: what else there is to know of them, as JSON has it.
        """
        if fingerprint(self.files, self.facts) == self.fingerprint:
            with suppress(RuntimeError):  # no thread can be started
                Keeper(self.fingerprint, Contents(tensors, form)).start()
