"""``tidemill models``: which models jobs may name."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill import terminal
from tidemill.cli import options
from tidemill.cli.texts import check_utf8

app = typer.Typer(no_args_is_help=True, help="List, download and add models.")

Name = Annotated[str, typer.Argument(help="What jobs call the model.")]


@app.command("list")
def list_models(home: options.Home = None, as_json: options.Json = False) -> None:
    """List the models of this home folder, and whether they can be loaded.

    Examples:

        tidemill models list
    """
    from tidemill.cli.render import print_json, print_table
    from tidemill.run.session import settings_for
    from tidemill.serve.model_store import list_models

    models = list_models(settings_for(home))
    if as_json:
        print_json(models)
        return
    rows = [
        (model.name, model.source, f"unusable: {model.problem}" if model.problem else "ready")
        for model in models
    ]
    print_table(("name", "source", "state"), rows)


@app.command("add")
def add(
    name: Name,
    path: Annotated[Path, typer.Argument(help="A Hugging Face folder or a .gguf file.")],
    home: options.Home = None,
) -> None:
    """Add a model that is on this machine, if all but the numbers in its weights is in order.

    Examples:

        tidemill models add qwen3 ~/models/Qwen3-0.6B

        tidemill models add smollm2-360m ~/models/smollm2-360m-q8_0.gguf
    """
    from tidemill.run.session import settings_for
    from tidemill.serve.model_store import add_model

    check_utf8("path", str(path))  # it is kept in the database
    terminal.put(add_model(settings_for(home), name, path))


@app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="smollm2, or a Hugging Face repository's id.")],
    as_name: Annotated[
        str | None, typer.Option("--as", help="What jobs call it. [default: the id's last part]")
    ] = None,
    home: options.Home = None,
) -> None:
    """Download a model and add it.

    Examples:

        tidemill models pull smollm2

        tidemill models pull HuggingFaceTB/SmolLM2-360M-Instruct --as smollm2-360m
    """
    from tidemill.run.session import settings_for
    from tidemill.serve.model_store import pull_model

    terminal.say(f"Downloading {name}")
    terminal.put(pull_model(settings_for(home), name, as_name))
