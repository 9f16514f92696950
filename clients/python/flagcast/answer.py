"""What the receiver answers to whoever posts to it, before it is put into WSGI's or ASGI's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

Headers = list[tuple[str, str]]

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    503: "Service Unavailable",
}


class Answer(NamedTuple):
    """A status, headers without the body's, and a small JSON body."""

    status: int
    headers: Headers
    body: bytes

    def all_headers(self) -> Headers:
        """The headers with those of the body."""
        own = [("Content-Type", "application/json"), ("Content-Length", str(len(self.body)))]
        return self.headers + own


class Refused(Exception):
    """A request that is not taken: the status that says so, and why."""

    def __init__(self, status: int, error: str, headers: Headers | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.headers = headers or []


def json_answer(status: int, body: Mapping[str, Any], headers: Headers) -> Answer:
    """An answer with `body` as JSON."""
    return Answer(status, headers, json.dumps(body).encode())
