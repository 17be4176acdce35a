"""An estimate from the user's side: a sample that is really run, if wanted, and the question."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from storage.datasets.request_lines import RequestOptions
from storage.datasets.values.sources import Source
from tidemill.client.shapes import Batch
from tidemill.errors import Interrupted, TidemillError
from tidemill.estimates.sample import sample_of
from tidemill.run.formats import OnInvalid
from tidemill.run.jobs import (
    LONGEST_WINDOW,
    RUN_MARK,
    Order,
    cancel_left_over,
    follow,
    submit,
)
from tidemill.run.progress import Reporter
from tidemill.run.session import Session

SAMPLE_MARK = {"tidemill_sample": "1"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of the question.

    Attributes:
        batch: the one that holds the estimate, or that failed.
        sample: the one that ran some of the rows.
    """

    batch: Batch
    sample: Batch | None = None


def ask(
    session: Session,
    source: Source,
    options: RequestOptions,
    reporter: Reporter,
    *,
    sample: int | None = None,
) -> Asked:
    """Ask what an input would cost; with ``sample``, so many of its rows are run first.

    Raises:
        UsageError: options do not fit the input, or the sample is larger than it.
        Interrupted: by Ctrl-C.
        TidemillError: no row of the sample was answered, or the service could not be used.
    """
    order = Order.of(source, options)
    if session.own:
        cancel_left_over(session.client, reporter)
    wanted: dict[str, Any] = {"estimate": True}
    ran: Batch | None = None
    if sample is not None:
        rows = replace(order, upload=sample_of(source, options, sample))
        ran = _batch(session, rows, reporter, SAMPLE_MARK, {})
        if ran.status == "failed":
            return Asked(ran, ran)
        if ran.output_file_id is None:
            raise TidemillError(
                f"None of the {sample:,} rows of the sample was answered, so nothing can be learned"
                f" from them; to see why: tidemill fetch {ran.id} --errors FILE"
            )
        wanted["sample"] = ran.id
    return Asked(_batch(session, order, reporter, {}, wanted), ran)


def _batch(
    session: Session,
    order: Order,
    reporter: Reporter,
    mark: Mapping[str, str],
    options: Mapping[str, Any],
) -> Batch:
    try:
        batch = submit(
            session.client,
            order,
            reporter,
            on_invalid=OnInvalid.SKIP,
            window=LONGEST_WINDOW,
            # What is left by a command that was killed is cancelled by the next one.
            metadata={**mark, **(RUN_MARK if session.own else {})},
            options=options,
        )
        followed = follow(session, batch, reporter)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; there is no estimate.") from None
    if followed.interrupted or followed.batch.status in ("cancelled", "expired"):
        raise Interrupted("Interrupted; there is no estimate.")
    return followed.batch
