"""``python -m stack``."""

import sys

from stack.errors import StackError


def main() -> None:
    """Run the command; what can be expected to go wrong is one message, not a traceback."""
    try:
        from stack.cli import app
    except ModuleNotFoundError as error:
        sys.exit(
            f"Error: the stack needs the package {error.name}: 'make install', "
            "or pip install -e '.[engine,dev]'."
        )
    try:
        app()
    except StackError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
