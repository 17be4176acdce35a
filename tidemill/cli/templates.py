"""The template that a command is given: on its command line, or in a file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.errors import InputError, UsageError

if TYPE_CHECKING:
    from storage.datasets.templates.row_template import RowTemplate


def template_of(
    text: str | None, file: Path | None, *, column: str | None, endpoint: str
) -> "RowTemplate | None":
    """The template of ``--template`` or ``--template-file``; ``None`` where neither is given.

    Args:
        column: that of ``--column``, which cannot be given beside a template.
        endpoint: the endpoint that it makes requests for.

    Raises:
        UsageError: it is no template, or options do not go together.
        InputError: the file cannot be read.
    """
    if text is None and file is None:
        return None
    if text is not None and file is not None:
        raise UsageError("--template and --template-file are both given; choose one.")
    if column is not None:
        raise UsageError("A template names its columns itself; leave out --column.")
    # Imported here: what has no template then starts without loading jinja2.
    from storage.datasets.templates.row_template import RowTemplate
    from tidemill.run.dataset_errors import dataset_errors

    with dataset_errors():
        template = RowTemplate.parse(spec_of(text, file))
        template.check_endpoint(endpoint)
    return template


def spec_of(text: str | None, file: Path | None) -> Any:
    """What the service is sent of ``--template`` or ``--template-file``; ``None`` for neither."""
    return text if file is None else _read(file)


def _read(file: Path) -> Any:
    """A file's template: JSON where it is that or is called so, else text without its last line
    end."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text.") from error
    if file.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            if file.suffix.lower() == ".json":
                raise InputError(f"{file} is not JSON: {error}.") from error
    return text.removesuffix("\n")
