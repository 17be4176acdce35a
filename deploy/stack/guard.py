"""Children that end with their parent, however the parent ends.

A shell waits on a pipe whose other end only the parent holds. The kernel closes that end when the
parent dies, by SIGKILL too, and the shell then kills the child's process group. Linux's own
``PR_SET_PDEATHSIG`` looks simpler, and is not used because it follows the *thread* that started the
child (a helper thread that ends would take a server with it), is lost when the child changes its
user (PostgreSQL under root does), and reaches no grandchildren.
"""

import subprocess
from contextlib import suppress

# `read` returns only at the end of the file, since nobody writes to the pipe.
SCRIPT = 'read -r _; kill -s KILL -- "-$1" 2>/dev/null'


class Guard:
    """Kills the process group ``group`` once this process is gone, unless released before."""

    def __init__(self, group: int) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "stack-guard", str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C at the terminal is not for it
        )

    def release(self) -> None:
        """Give the guard up; call it when the group has ended. A second call does nothing."""
        self._shell.kill()
        self._shell.wait()
        if self._shell.stdin is not None:
            with suppress(OSError):
                self._shell.stdin.close()
