"""What a running stack leaves in its folder for others to read, and what it prints."""

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from stack.topology import Stack


@dataclass(frozen=True, slots=True)
class Report:
    """A running stack, as ``stack.json`` in its folder and ``--json`` tell it.

    Attributes:
        pid: the process that holds it.
        url: where the API listens.
        environment: the ``TIDEMILL_…`` variables of all its processes, secrets included.
        processes: name → process id; 0 where one does not run at the moment.
    """

    pid: int
    url: str
    client_url: str
    api_key: str
    folder: str
    logs: str
    environment: dict[str, str]
    processes: dict[str, int]

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """The report of a stack of this process."""
        return cls(
            pid=os.getpid(),
            url=stack.url,
            client_url=stack.client_url,
            api_key=stack.api_key,
            folder=str(stack.folder),
            logs=str(stack.logs),
            environment=stack.environment,
            processes={p.name: p.pid if p.running else 0 for p in stack.everything},
        )

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The report of the stack that was last started in this folder, if any was."""
        try:
            return cls(**json.loads(_path(folder).read_bytes()))
        except FileNotFoundError:
            return None

    def write(self) -> None:
        """Replace the folder's report; only its owner can read it."""
        path = _path(Path(self.folder))
        new = path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(self.json())
        new.replace(path)

    def json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    def text(self) -> str:
        """What a person wants to know: addresses, logs, and something to try."""
        value = self.environment
        store = f"key {value['TIDEMILL_S3_ACCESS_KEY_ID']}, secret "
        store += value["TIDEMILL_S3_SECRET_ACCESS_KEY"]
        command = Path(sys.executable).with_name("tidemill")
        return f"""
  API         {self.client_url}  (key {self.api_key})
  PostgreSQL  {value["TIDEMILL_DATABASE_URL"]}
  Valkey      {value["TIDEMILL_BROKER_URL"]}
  S3          {value["TIDEMILL_S3_ENDPOINT_URL"]}  ({store})
              {value["TIDEMILL_OBJECT_STORE_URL"]}
  Data, logs  {self.folder}, {self.logs}

Try it, in another terminal:

  export TIDEMILL_URL={self.url} TIDEMILL_API_KEY={self.api_key}
  printf 'What is the capital of France?\\nName a prime number.\\n' > prompts.txt
  id=$({shlex.quote(str(command))} submit prompts.txt --temperature 0 --max-tokens 16)
  {shlex.quote(str(command))} watch $id && {shlex.quote(str(command))} fetch $id -o -

Ctrl-C stops everything. The data stays, and the next stack in this folder goes on with it.
"""


def _path(folder: Path) -> Path:
    return folder / "stack.json"
