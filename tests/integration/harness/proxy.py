"""A TCP proxy that can be told, while it runs, to spoil what passes through it.

It stands between a client and a server of any protocol; only `Answer` speaks HTTP. A fault holds
for the connections that are open as well as for new ones.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

READ_BYTES = 64 * 1024
HEAD_BYTES = 64 * 1024
DRAIN_SECONDS = 5.0
JOIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Slow:
    """Every block waits ``delay`` seconds, and no more than ``bytes_per_second`` pass."""

    delay: float = 0.2
    bytes_per_second: float = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Cut:
    """A connection is reset once ``after`` bytes of answers have passed.

    With 0 the request has its effect and its answer is lost.
    """

    after: int = 0
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody listens, and open connections are reset."""


@dataclass(frozen=True, slots=True)
class Blackhole:
    """Connections are taken, and nothing passes in either direction."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A share of new connections gets this HTTP status, and its request never arrives."""

    status: int = 503
    share: float = 1.0


Fault = Slow | Cut | Refuse | Blackhole | Answer


class Proxy:
    """Listens on a free port of this machine. Use it as a context manager.

    Attributes:
        port: where it listens, the same at all times.
        struck: how often each kind of fault hit a connection or a block.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        """``host`` and ``port`` are the server's; ``seed`` chooses who is hit by a share."""
        self._upstream = (host, port)
        self._random = random.Random(seed)
        self._fault: Fault | None = None
        self._changed = asyncio.Event()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0
        self.struck: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(JOIN_SECONDS)
        self._loop.close()

    @property
    def url(self) -> str:
        """For an HTTP server: where clients find it through this proxy."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def fault(self) -> Fault | None:
        """What is done to connections at the moment."""
        return self._fault

    def set(self, fault: Fault | None) -> None:
        """Begin a fault in place of the last one; ``None`` ends it. Safe from any thread."""
        self._call(self._set(fault))

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(JOIN_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _set(self, fault: Fault | None) -> None:
        self._fault = fault
        self._changed.set()
        self._changed = asyncio.Event()
        if isinstance(fault, Refuse):
            self._shut()
            self._strike(fault)
        elif self._server is None:
            await self._listen()
        if isinstance(fault, Refuse | Answer):
            for link in self._links:
                link.reset()

    async def _close(self) -> None:
        self._shut()
        tasks = [link.task for link in self._links if link.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(reader, writer)
        link.task = asyncio.current_task()
        self._links.add(link)
        try:
            if isinstance(self._fault, Answer) and self._chosen(self._fault.share):
                self._strike(self._fault)
                await _answer(reader, writer, self._fault.status)
            else:
                await self._forward(link)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # either side may go away at any time
        finally:
            link.reset()
            self._links.discard(link)

    async def _forward(self, link: "_Link") -> None:
        await self._passable()
        link.upstream = await asyncio.open_connection(*self._upstream)
        reader, writer = link.upstream
        there = asyncio.create_task(self._pump(link, link.reader, writer, answers=False))
        back = asyncio.create_task(self._pump(link, reader, link.writer, answers=True))
        try:
            await asyncio.gather(there, back)
        finally:
            there.cancel()
            back.cancel()

    async def _pump(
        self,
        link: "_Link",
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        *,
        answers: bool,
    ) -> None:
        while block := await source.read(READ_BYTES):
            await self._passable()
            fault = self._fault
            if isinstance(fault, Slow):
                self._strike(fault)
                await asyncio.sleep(fault.delay + len(block) / fault.bytes_per_second)
            elif isinstance(fault, Cut) and answers:
                link.passed += len(block)
                if link.passed > fault.after and self._chosen(fault.share):
                    self._strike(fault)
                    target.write(block[: max(0, len(block) - (link.passed - fault.after))])
                    with suppress(OSError):
                        await target.drain()
                    raise ConnectionResetError
            target.write(block)
            await target.drain()
        with suppress(OSError):
            target.write_eof()

    async def _passable(self) -> None:
        """Wait while nothing may pass."""
        while isinstance(self._fault, Blackhole):
            self._strike(self._fault)
            await self._changed.wait()

    def _chosen(self, share: float) -> bool:
        return self._random.random() < share

    def _strike(self, fault: Fault) -> None:
        self.struck[type(fault).__name__.lower()] += 1


class _Link:
    """One client's connection and, once there is one, its other half."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.task: asyncio.Task[Any] | None = None
        self.passed = 0  # bytes of answers since the connection began

    def reset(self) -> None:
        """End both halves at once, with unsent bytes dropped."""
        self.writer.transport.abort()
        if self.upstream is not None:
            self.upstream[1].transport.abort()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int) -> None:
    """Read a request's head, answer with an error, and take in the rest until the client is gone.

    Leaving earlier would reset the connection, and with it the answer.
    """
    await reader.readuntil(b"\r\n\r\n")
    body = b"<Error><Code>InternalError</Code><Message>A fault of the test.</Message></Error>"
    head = f"HTTP/1.1 {status} Fault\r\nContent-Type: application/xml\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while await reader.read(READ_BYTES):
                pass
