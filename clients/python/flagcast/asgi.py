"""The receiver in ASGI's words: an app for one address, and a middleware.

Nothing here blocks the event loop, and no thread is held while a delivery waits for its flags: the
thread that fetches them wakes the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, MutableMapping
from typing import Any, Callable

from .answer import Answer, Refused
from .delivery import Delivery, accept, admit, admit_length, refuse, settle
from .engine import Engine
from .wsgi import Process

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class AsgiReceiver:
    """Answers deliveries, whatever the path."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            answer = await self._answer(scope, receive)
            if answer:
                await _send(answer, scope, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | None:
        engine, options = self._process.engine(), self._process.options
        headers = _Headers(scope)
        try:
            admit(scope["method"], headers("content-length"))
            body = await _body(receive)
            if body is None:
                return None
            delivery = accept(options, engine.seen, headers, body)
        except Refused as refused:
            return refuse(refused, engine.held)
        if not engine.held.has(delivery.updated_at):
            await _wait(engine, delivery, options.answer_timeout)
        return settle(delivery, engine.held)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The receiver as the whole app of a server."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._process.engine()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return


class AsgiMiddleware:
    """Answers deliveries at one path, and passes everything else on to an app."""

    def __init__(self, process: Process, receiver: ASGIApp, app: ASGIApp, path: str) -> None:
        self._process = process
        self._receiver = receiver
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _path(scope) == self._path:
            await self._receiver(scope, receive, send)
            return
        # Also when the app starts (`lifespan`): then its flags are there for the first request.
        self._process.engine()
        await self._app(scope, receive, send)


class _Headers:
    """The headers of a request, by their names in small letters."""

    def __init__(self, scope: Scope) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            self._values.setdefault(bytes(name).lower(), []).append(bytes(value))

    def __call__(self, name: str) -> str | None:
        values = self._values.get(name.encode())
        # One that comes twice is garbled; WSGI servers join them, too.
        return b",".join(values).decode("latin-1") if values else None


async def _body(receive: Receive) -> bytes | None:
    """The body's bytes; `None` when the sender has gone. Raises `Refused` when it is too large."""
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        length += len(part)
        admit_length(length)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _wait(engine: Engine, delivery: Delivery, timeout: float) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake() -> None:
        # The loop may have ended in the meantime; then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    cancel = engine.expect(delivery, wake)
    try:
        await asyncio.wait_for(done.wait(), timeout)
    except asyncio.TimeoutError:
        pass
    finally:
        cancel()


async def _send(answer: Answer, scope: Scope, send: Send) -> None:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in answer.all_headers()
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})


def _path(scope: Scope) -> str:
    """The path below where the app is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if path.startswith(root) else path
