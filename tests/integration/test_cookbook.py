"""Every recipe of docs/cookbook.md, run as it stands."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from integration.support import ENVIRONMENT
from stack.seaweed import REGION, Seaweed

pytestmark = pytest.mark.slow

TEXT = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text()
RECIPES: dict[str, str] = dict(
    re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
)
PORT = "8000"  # in the recipes


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def script(recipe: str, port: int) -> str:
    """The blocks of a recipe as one script; it waits for services as a person does."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", recipe, re.DOTALL | re.MULTILINE)
    text = "\n".join(
        block if language == "sh" else f"python - <<'RECIPE'\n{block}RECIPE\n"
        for language, block in blocks
    )
    begun = f"tidemill up --port {PORT} &\n"
    waited = (
        begun.replace(" &\n", " > up.log &\n") + "until grep -q http up.log; do sleep 0.1; done\n"
    )
    return "set -e\n" + text.replace(begun, waited).replace(PORT, str(port))


def commands(folder: Path) -> Path:
    """A folder with this Python and the ``tidemill`` of this tree."""
    folder.mkdir()
    for name, more in (("tidemill", "-m tidemill.cli.main "), ("python", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {more}"$@"\n')
        program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server: its address and credentials as boto3 finds them in the environment."""
    server = Seaweed(tmp_path_factory.mktemp("s3")).start()
    try:
        yield {
            "AWS_ENDPOINT_URL_S3": server.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": server.settings["s3_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": server.settings["s3_secret_access_key"],
        }
    finally:
        server.kill()


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_runs_as_it_stands(
    title: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    port = free_port()
    environment = ENVIRONMENT | {
        "PATH": f"{commands(tmp_path / 'bin')}:{os.environ['PATH']}",
        "TIDEMILL_HOME": str(tmp_path / "home"),
        "TIDEMILL_URL": f"http://127.0.0.1:{port}",
    }
    if "s3://" in RECIPES[title]:
        environment |= request.getfixturevalue("s3")
    said = tmp_path / "said.txt"
    with said.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", "-c", script(RECIPES[title], port)],
            cwd=tmp_path,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(240)
        finally:
            with suppress(ProcessLookupError):  # no service was begun
                os.killpg(shell.pid, signal.SIGTERM)
    assert code == 0, said.read_text()
