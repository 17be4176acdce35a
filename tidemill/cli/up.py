"""``tidemill up``: the whole service in one command."""

from tidemill import terminal
from tidemill.cli import options


def up(
    host: options.Host = None,
    port: options.Port = None,
    home: options.Home = None,
) -> None:
    """Start the service: API, worker and reconciler, until Ctrl-C or SIGTERM.

    Listening on an address that other machines can reach needs TIDEMILL_API_KEYS to be set. The
    first Ctrl-C gives running work back and stops, with exit code 0; the second ends at once.
    Where TIDEMILL_BROKER_URL names a broker, only the API starts: workers are started by
    themselves.

    Examples:

        tidemill up

        TIDEMILL_API_KEYS=secret tidemill up --host 0.0.0.0 --port 9000 --home /data/tidemill
    """
    from tidemill.run.session import settings_for
    from tidemill.serve.logs import start_logs
    from tidemill.serve.signals import stop_on_signals, wait_until_set

    settings = settings_for(home, host=host, port=port)
    start_logs(settings)
    stop = stop_on_signals()
    from tidemill.serve.service import Service

    with Service(settings, stop=stop) as service:
        where = f"keeps its data in {settings.storage.home}"
        if not settings.storage.embedded:
            where = "leaves the work to 'tidemill worker'"
        terminal.put(f"Tidemill listens on {service.url}/v1 and {where}. Ctrl-C stops it.")
        terminal.flush()
        wait_until_set(stop)
        terminal.say("Stopping. A second Ctrl-C ends at once.")
