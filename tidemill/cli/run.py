"""``tidemill run`` and ``tidemill submit``: a file becomes a job."""

from contextlib import ExitStack, closing
from typing import Annotated

import typer

from tidemill import terminal
from tidemill.cli import options
from tidemill.exits import of_batch
from tidemill.run.formats import Endpoint, InputFormat, OnInvalid


def run(
    inputs: options.Inputs,
    output: options.Output = None,
    errors: options.Errors = None,
    format: options.OutputFormat = None,
    model: options.Model = None,
    column: options.Column = None,
    template: options.Template = None,
    template_file: options.TemplateFile = None,
    input_format: options.InputFormatOption = InputFormat.AUTO,
    system: options.System = None,
    endpoint: options.EndpointOption = Endpoint.CHAT,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    answer_column: options.ResultColumn = "answer",
    home: options.Home = None,
    api_key: options.ApiKey = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a whole job in one command: upload, plan, run, fetch.

    The input is told by its content: batch requests, lines of {"prompt"} or {"messages"}, plain
    text with one prompt a line, CSV or TSV, each of them perhaps gzipped, or Parquet. What it is
    read as is said first; --input-format settles it. Bad lines do not stop the others. Ctrl-C,
    SIGTERM or SIGHUP cancels the job and keeps what is done; a second Ctrl-C leaves at once.
    Several inputs run one after the other, each as a job with results of its own.

    Examples:

        tidemill run prompts.txt

        tidemill run questions.jsonl --system "Answer in one word." --max-tokens 8 -o answers.jsonl

        tidemill run reviews.parquet --column review --temperature 0

        tidemill run table.csv --column question

        tidemill run table.csv --template "Is {{ city }} in {{ country }}? Yes or no."

        cat prompts.txt | tidemill run - -o - | jq .answer

        tidemill run monday.jsonl tuesday.jsonl -o results/
    """
    from engine.process.launch import launch
    from tidemill.errors import Interrupted, UsageError
    from tidemill.run.files import STDOUT

    if as_json and output == STDOUT:
        raise UsageError("--json and '-o -' both want standard output; choose one.")
    with ExitStack() as stack:
        # It imports torch, while this process imports all the rest and looks at the inputs.
        launched = stack.enter_context(closing(launch()))
        from storage.datasets.request_lines import RequestOptions
        from tidemill.cli.render import print_outcome, shown_at_the_end
        from tidemill.cli.templates import template_of
        from tidemill.run.checks import ModelNeeded, check_options
        from tidemill.run.empty import is_empty, without_rows
        from tidemill.run.inputs import open_inputs
        from tidemill.run.jobs import Outcome, run_whole
        from tidemill.run.progress import reporter
        from tidemill.run.session import Session, own_service
        from tidemill.run.several import needs_model, plan_jobs, what_is_left, worst

        sampling = options.sampling_of(max_tokens, temperature, top_p, seed, stop)
        made_by = template_of(template, template_file, column=column, endpoint=endpoint.path)
        request = RequestOptions(model, system, sampling, endpoint.path, template=made_by)
        check_options(request)
        outcomes: list[Outcome] = []
        session: Session | None = None
        sources = stack.enter_context(open_inputs(inputs, column, home, input_format.kind, made_by))
        jobs = plan_jobs(
            inputs,
            sources,
            request,
            output=output,
            errors=errors,
            format=format,
            answer_column=answer_column,
        )
        summaries = stack.enter_context(shown_at_the_end(as_json, several=len(jobs) > 1))
        needed = ModelNeeded(model, max_tokens) if needs_model(sources, made_by) else None
        for job in jobs:
            with reporter(terminal.console(), quiet=quiet) as report:
                if not quiet:
                    report.note(job.source.described)
                if is_empty(job.source):
                    outcome = without_rows(job.source, job.target)
                else:
                    if session is None:
                        report.say("Starting")
                        service = own_service(home, api_key, needed, launched, report.every_seconds)
                        session = stack.enter_context(service)
                    outcome = run_whole(session, job.source, job.order, job.target, report)
            outcomes.append(outcome)
            summaries.append(outcome.summary)
            print_outcome(outcome, quiet=quiet)
            if outcome.interrupted:
                break
        not_begun = [str(job.path) for job in jobs[len(outcomes) :]]
    if outcomes[-1].interrupted:
        raise Interrupted(what_is_left(outcomes[-1], not_begun))
    batches = [outcome.batch for outcome in outcomes]
    raise typer.Exit(worst(of_batch(x.status, x.request_counts.failed) for x in batches))


def submit(
    inputs: options.InputsOrUris,
    model: options.Model = None,
    column: options.Column = None,
    template: options.Template = None,
    template_file: options.TemplateFile = None,
    key: options.Key = None,
    input_format: options.InputFormatOption = InputFormat.AUTO,
    system: options.System = None,
    endpoint: options.EndpointOption = Endpoint.CHAT,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    window: options.Window = "24h",
    on_invalid: Annotated[
        OnInvalid,
        typer.Option("--on-invalid", help="What bad lines do: fail the batch, or be skipped."),
    ] = OnInvalid.FAIL,
    output_uri: options.OutputUri = None,
    format: options.ShardFormatOption = None,
    passthrough: options.PassedColumns = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Send a job to a running service and print the batch's id.

    Understands the same inputs as run; several are a batch each, an id a line. Of s3://… and
    file:///…, and with --key, the service makes the requests itself.

    Examples:

        id=$(tidemill submit requests.jsonl)

        tidemill watch $id && tidemill fetch $id -o answers.jsonl

        tidemill submit s3://bucket/reviews/ --template 'Summarize: {{ text }}' --key id \
            --output-uri s3://bucket/answers/ --passthrough '*'
    """
    from storage.datasets.request_lines import RequestOptions
    from tidemill.cli.render import shown_at_the_end
    from tidemill.cli.templates import spec_of, template_of
    from tidemill.errors import InputError, UsageError
    from tidemill.run.checks import check_options
    from tidemill.run.empty import is_empty
    from tidemill.run.inputs import open_inputs
    from tidemill.run.jobs import Order, submit_table
    from tidemill.run.jobs import submit as send
    from tidemill.run.progress import reporter
    from tidemill.run.session import connect
    from tidemill.run.uploads import Table, output_options

    sampling = options.sampling_of(max_tokens, temperature, top_p, seed, stop)
    made_by = template_of(template, template_file, column=column, endpoint=endpoint.path)
    request = RequestOptions(model, system, sampling, endpoint.path, template=made_by)
    check_options(request)
    requests = not all(isinstance(each, str) or key for each in inputs)
    written = output_options(output_uri, format, passthrough, requests=requests)
    if written and len(inputs) > 1:
        raise UsageError("--output-uri is of one input; submit each with a place of its own.")
    spec = spec_of(template, template_file)
    tables = {
        given: Table.of(given, request, spec, key=key, column=column, kind=input_format.kind)
        for given in inputs
        if isinstance(given, str) or key
    }
    paths = [given for given in inputs if given not in tables]
    with (
        open_inputs(paths, column, home, input_format.kind, made_by) as sources,
        connect(url, api_key, home) as client,
        shown_at_the_end(as_json, several=len(inputs) > 1) as batches,
    ):
        for source in filter(is_empty, sources):
            raise InputError(f"{source.name} has no rows; there is nothing to submit.")
        orders = iter([Order.of(source, request) for source in sources])
        for order in [tables[each] if each in tables else next(orders) for each in inputs]:
            with reporter(terminal.console(), quiet=quiet) as report:
                if isinstance(order, Table):
                    sent = submit_table(
                        *(client, order, report),
                        on_invalid=on_invalid,
                        window=window,
                        options=written,
                    )
                else:
                    if not quiet:
                        report.note(order.source.described)
                    sent = send(
                        *(client, order, report),
                        on_invalid=on_invalid,
                        window=window,
                        options=written,
                    )
                batches.append(sent)
            if not as_json:
                # At once: what is sent is sent, whatever becomes of the next one.
                terminal.put(batches[-1].id)
                terminal.flush()
