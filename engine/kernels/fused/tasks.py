"""How a step's attention is divided among the programs of a kernel."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

TILE_FIELDS = 8
"""Numbers that tell one tile of a segment, the last two unused so that it lies in 32 bytes."""


@dataclass(frozen=True, slots=True)
class TaskArrays:
    """What the programs of attention read about their work: int32 on the device.

    Each has the room that `engine.kernels.fused.task_maker.TaskMaker.sizes` says; what lies behind
    a step's own numbers is of an earlier step. A *member* is a token whose sequence shares a
    segment, a *piece* the attention of one token over some of its keys.

    Attributes:
        split_keys: [S]; keys of one split of a decode behind its shared ones, a multiple of 128.
        window_split_keys: [S]; the same where a window hides earlier keys and nothing is shared.
        shared: [S]; keys at the front of a sequence that segments read.
        pieces: [S, 2]; the first of a sequence's pieces over segments, and how many each of its
            tokens has. They lie token by token.
        prefill_tiles: [tiles, 2]; sequence, and which of its tokens the tile begins with. Longest
            first.
        segment_tiles: [tiles, 8]; slot whose block table is read, first key, end of the keys,
            first member, number of members (0: no work), and which of the segment's pieces it is.
        members: [members, 2]; token, and the first of its pieces over this segment.
    """

    split_keys: Tensor
    window_split_keys: Tensor
    shared: Tensor
    pieces: Tensor
    prefill_tiles: Tensor
    segment_tiles: Tensor
    members: Tensor


@dataclass(frozen=True, slots=True)
class AttentionTasks:
    """Decodes are the first sequences and have one token each; the others are prefills.

    Kernels that divide nothing read the first three numbers alone.

    Attributes:
        num_decodes: decodes, padding included.
        num_prefills: the sequences behind them.
        max_decode_context: most keys of any decode.
        splits: most programs that share the keys of one decode and KV head.
        prefill_rows: rows (tokens times query heads of a KV head) of a prefill's tile.
        prefill_tiles: tiles of prefills.
        segment_rows: rows of a segment's tile.
        segment_tiles: tiles of segments, empty ones included.
        own_pieces: where the pieces of split decodes begin, behind those over segments.
        window: the widest sliding window that the division serves.
        arrays: on the device; ``None`` until `on` was called.
    """

    num_decodes: int
    num_prefills: int
    max_decode_context: int
    splits: int = 1
    prefill_rows: int = 0
    prefill_tiles: int = 0
    segment_rows: int = 0
    segment_tiles: int = 0
    own_pieces: int = 0
    window: int | None = None
    arrays: TaskArrays | None = None

    @property
    def launches(self) -> tuple[int, ...]:
        """What the launches of a step depend on, beside the shapes of its tensors."""
        return (
            self.num_decodes,
            self.splits,
            self.prefill_rows,
            self.prefill_tiles,
            self.segment_rows,
            self.segment_tiles,
        )

    def on(self, arrays: Mapping[str, Tensor]) -> "AttentionTasks":
        """The same division with its arrays on a device, each as long as `TaskMaker.sizes` says."""
        return replace(self, arrays=TaskArrays(**arrays))
