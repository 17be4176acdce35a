"""What a batch keeps of its dataset, beside the input file."""

from typing import Any

import msgspec

from storage.datasets.values.sources import Kind

OPTIONS_KEY = "dataset"  # of a job's options


class DatasetOptions(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How the rows of a batch's input become requests.

    Attributes:
        input_uri: the URIs of an input in place, of which the input file is the snapshot; empty
            where the input file is the table itself.
        name: what an uploaded table is called.
        format: what the files are, where the user says so.
        template: what makes a request of a row; without one, a row has its prompt or messages.
        column: the column with the prompts.
        key: the column whose values are the ``custom_id``.
    """

    input_uri: tuple[str, ...] = ()
    name: str | None = None
    format: Kind | None = None
    template: Any = None
    column: str | None = None
    key: str | None = None

    @property
    def asked(self) -> bool:
        """Whether anything but the name is said, so that the input is sure to be a dataset."""
        return msgspec.structs.replace(self, name=None) != DatasetOptions()
