"""``tidemill doctor``: what is there, and what is missing for what."""

import typer

from tidemill.cli import options
from tidemill.exits import ExitCode


def doctor(home: options.Home = None, as_json: options.Json = False) -> None:
    """Check this machine and its settings. Exit code 1 says that something needed is missing.

    Examples:

        tidemill doctor

        tidemill doctor --json | jq '.[] | select(.ok | not)'
    """
    from tidemill.cli.render import print_json, print_table
    from tidemill.run.session import quiet_level, settings_for
    from tidemill.serve.doctor import run_checks
    from tidemill.serve.logs import start_logs

    settings = settings_for(home, log_level=quiet_level())
    start_logs(settings)
    checks = run_checks(settings)
    if as_json:
        print_json(checks)
    else:
        words = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING"}
        rows = [
            (check.name, words.get((check.ok, check.needed), "not set up"), check.found, check.hint)
            for check in checks
        ]
        print_table(("check", "state", "found", "what to do"), rows)
    if any(check.needed and not check.ok for check in checks):
        raise typer.Exit(ExitCode.FAILURE)
