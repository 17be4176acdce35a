"""The options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.ranges import above_zero_to, at_least, between, completion_window
from tidemill.errors import UsageError
from tidemill.run.formats import URI_SCHEMES, Endpoint, Format, InputFormat, ShardFormat

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="The input files, each a job of its own; '-' reads standard input.",
    ),
]


def named_input(text: str) -> Path | str:
    """A path, which may be any bytes, or a URI as it is."""
    return text if text.startswith(URI_SCHEMES) else Path(text)


InputsOrUris = Annotated[
    list[Path],  # and texts, where they are URIs
    typer.Argument(
        parser=named_input,
        metavar="INPUT...",
        help="The input files, each a job of its own; '-' reads standard input. s3://… and "
        "file:///… are read where they lie, by the service: a file, a folder or a glob.",
    ),
]
Key = Annotated[
    str | None, typer.Option("--key", help="The column whose values are the custom_id.")
]
BatchId = Annotated[str, typer.Argument(metavar="ID", help="The batch's id.")]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="TIDEMILL_URL",
        help="Where the service listens. By default the one that uses the home folder, else "
        "http://127.0.0.1:8000.",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="TIDEMILL_API_KEY", help="The key the service asks for."),
]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="The data folder; TIDEMILL_HOME, or else ~/.tidemill."),
]
Host = Annotated[
    str | None, typer.Option("--host", help="The address to listen on. [default: 127.0.0.1]")
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        callback=between(0, 65535),
        metavar="<0 to 65535>",
        help="0 takes a free one. [default: 8000]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no summary.")]


def named_output(text: str) -> Path:
    """A path that was given; an empty one, of a variable that is not set, would be the folder."""
    if not text:
        raise UsageError(
            "--output and --errors need the name of a file or a folder; for standard output '-'."
        )
    return Path(text)


Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        parser=named_output,
        metavar="<path>",
        help="The output file; '-' is standard output. A folder takes a file for each input.",
    ),
]
Errors = Annotated[
    Path | None,
    typer.Option(
        "--errors",
        parser=named_output,
        metavar="<path>",
        help="The file for rows that failed; written only if any did. Or a folder for such files.",
    ),
]
OutputUri = Annotated[
    str | None,
    typer.Option(
        "--output-uri",
        help="A folder or prefix of the service's, s3://… or file:///…, for the results as well.",
    ),
]
ShardFormatOption = Annotated[
    ShardFormat | None,
    typer.Option("--format", help="The format of the files there. [default: parquet]"),
]
PassedColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--passthrough",
        help="A column of the input to write there too; '*' is all. May be given several times.",
    ),
]
OutputFormat = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="openai: the batch's own lines. plain: the input's fields with the answer. parquet: "
        "the same as columns. By default as the input is.",
    ),
]
Column = Annotated[
    str | None,
    typer.Option("--column", help="The field or column that holds the prompts or messages."),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="TEXT",
        help="Makes the prompt of a row, in place of --column: 'Summarize: {{ body }}'.",
    ),
]
TemplateFile = Annotated[
    Path | None,
    typer.Option(
        "--template-file",
        metavar="FILE",
        help="The same from a file: a text, or JSON of messages or of a request's body.",
    ),
]
InputFormatOption = Annotated[
    InputFormat,
    typer.Option(
        "--input-format",
        help="What the input is, where its content and its name do not tell: text is one prompt a "
        "line, jsonl a row a line, requests are sent as they are.",
    ),
]
Window = Annotated[
    str,
    typer.Option(
        "--window",
        callback=completion_window,
        metavar="<1h to 365d>",
        help="The time the batch may take, as 24h or 7d.",
    ),
]
ResultColumn = Annotated[
    str, typer.Option("--answer-column", help="What to call the answer in the output.")
]

Model = Annotated[str | None, typer.Option("--model", help="The model. [default: smollm2]")]
System = Annotated[str | None, typer.Option("--system", help="A system message for every row.")]
EndpointOption = Annotated[
    Endpoint,
    typer.Option("--endpoint", help="completions sends prompts without the chat template."),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        callback=at_least(1),
        metavar="<1 or more>",
        help="Most tokens of an answer.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", callback=between(0.0, 2.0), metavar="<0 to 2>", help="0 is greedy."
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        callback=above_zero_to(1.0),
        metavar="<above 0 to 1>",
        help="Nucleus sampling.",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes sampling repeatable.")]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", help="Ends an answer. May be given several times.")
]


def sampling_of(
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    seed: int | None,
    stop: list[str] | None,
) -> dict[str, object]:
    """The parameters that were given, by their names in the API."""
    values: dict[str, object] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "stop": stop or None,
    }
    return {name: value for name, value in values.items() if value is not None}
