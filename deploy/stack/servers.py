"""The servers of the stack, the real ones, from Python packages."""

from stack.postgres import Postgres
from stack.seaweed import Seaweed
from stack.server import Server
from stack.valkey import Valkey

__all__ = ["Postgres", "Seaweed", "Server", "Valkey"]
