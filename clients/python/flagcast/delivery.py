"""The door: which requests are deliveries of ours, and what they are answered.

Nothing here waits or knows WSGI or ASGI. The apps ask in this order: `admit` before the body is
read, `accept` with the body, and `settle` when the wait for the new flags is over.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .answer import Answer, Headers, Refused, json_answer
from .copy import NOTHING, is_number, is_revision
from .held import Held
from .options import Options
from .replay import Seen
from .signature import Header, verify

# In bytes. A delivery is far smaller; only `events` with large values come near.
LARGEST = 256 * 1024

# What a delivery is told whose flags could not be fetched yet, in seconds.
RETRY_AFTER = 5


class Delivery(NamedTuple):
    """What a delivery says, whatever its type: the environment is at least at this."""

    updated_at: float
    revision: int


def admit(method: str, length: str | None) -> None:
    """Looks at the method and the declared length (`None` when there is none).

    Raises `Refused` with 405, 413 or 400.
    """
    if method != "POST":
        raise Refused(405, "webhooks come by POST", [("Allow", "POST")])
    if length:
        if not (length.isascii() and length.isdigit()):
            raise Refused(400, "content-length is not a number")
        # Python refuses to read numbers of very many digits.
        admit_length(int(length) if len(length) <= 15 else LARGEST + 1)


def admit_length(length: int) -> None:
    """Looks at how much has come. Raises `Refused` with 413."""
    if length > LARGEST:
        raise Refused(413, f"the body is larger than {LARGEST} bytes")


def accept(options: Options, seen: Seen, header: Header, body: bytes) -> Delivery:
    """Returns what a genuine delivery says. Raises `Refused` with 400, 401, 409 or 413."""
    admit_length(len(body))
    now = options.clock()
    attempt = verify(options.secrets, header, body, now)
    delivery = _read(body, options.client_key)
    if not seen.add(attempt, now):
        raise Refused(409, "this attempt was here already: a replay")
    return delivery


def settle(delivery: Delivery, held: Held) -> Answer:
    """The answer after the wait: whether what the delivery speaks of is held."""
    if held.has(delivery.updated_at):
        return json_answer(200, {"applied_revision": held.copy.revision}, _applied(held))
    error = f"the flags of revision {delivery.revision} could not be fetched yet"
    headers = [("Retry-After", str(RETRY_AFTER)), *_applied(held)]
    return json_answer(503, {"error": error}, headers)


def refuse(refused: Refused, held: Held) -> Answer:
    """The answer to what was not taken."""
    return json_answer(refused.status, {"error": refused.error}, refused.headers + _applied(held))


def _applied(held: Held) -> Headers:
    copy = held.copy
    return [] if copy is NOTHING else [("X-Flagcast-Applied-Revision", str(copy.revision))]


def _read(body: bytes, client_key: str) -> Delivery:
    try:
        message: Any = json.loads(body)
    # Deep nesting ends the parser's recursion.
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    data = message.get("data") if isinstance(message, dict) else None
    if not isinstance(data, dict):
        raise Refused(400, "the body has no object `data`: is this a webhook of Flagcast?")
    theirs = data.get("client_key")
    if theirs != client_key:
        raise Refused(
            400, f"this is of the client key {theirs!r}, and this receiver is for {client_key!r}"
        )
    updated_at, revision = data.get("updated_at"), data.get("revision")
    if not is_number(updated_at) or not is_revision(revision):
        raise Refused(400, "`data` has no `revision` or no `updated_at`: both are numbers")
    return Delivery(updated_at, revision)
