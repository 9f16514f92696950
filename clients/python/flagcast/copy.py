"""The flag set of an environment at one revision, as this process holds it: it never changes.

It comes from the gateway's answer or from the stored copy, and both are read here. Whatever is not
a flag set raises `NotACopy`, so that nothing half understood is ever held.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    # Python has it from 3.10 on.
    from typing import TypeGuard


class NotACopy(ValueError):
    """What was read is no flag set, or not ours; the text says why."""


class Flag(NamedTuple):
    """One flag: whether it is on, and what it holds (`None` when it holds nothing)."""

    enabled: bool
    value: Any


class Copy(NamedTuple):
    """A flag set with the stamp that was issued with it."""

    environment: str
    revision: int
    # Unix seconds, a multiple of 1/64: exact in a float, and strictly rising in an environment.
    updated_at: float
    flags: Mapping[str, Flag]
    # The validator of the answer that brought it; a stored copy has none.
    etag: str | None = None


# What is held before anything is known. Every real copy is newer.
NOTHING = Copy("", -1, -math.inf, MappingProxyType({}))


def from_answer(body: bytes, etag: str | None = None) -> Copy:
    """Reads an answer of `GET /sdk/v1/environments/{client_key}/flags`."""
    return _copy(_object(body), etag)


def from_stored(text: Any, client_key: str) -> Copy:
    """Reads what `to_stored` wrote; a copy of another environment is refused."""
    record = _object(text)
    if record.get("client_key") != client_key:
        raise NotACopy(f"it is of the client key {record.get('client_key')!r}, not {client_key!r}")
    return _copy(record, None)


def to_stored(copy: Copy, client_key: str) -> str:
    """The text that a store keeps: the gateway's answer, and whose it is."""
    flags = {key: flag._asdict() for key, flag in copy.flags.items()}
    record = {
        "client_key": client_key,
        "environment": copy.environment,
        "revision": copy.revision,
        "updated_at": copy.updated_at,
        "flags": flags,
    }
    return json.dumps(record, separators=(",", ":"))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether JSON gave a finite number; its `true` is an `int` in Python, and is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_revision(value: Any) -> TypeGuard[int]:
    """Whether JSON gave a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _object(text: Any) -> Mapping[str, Any]:
    try:
        record = json.loads(text)
    # Deep nesting ends the parser's recursion.
    except (ValueError, TypeError, RecursionError) as error:
        raise NotACopy(f"it is not JSON ({type(error).__name__})") from None
    if not isinstance(record, dict):
        raise NotACopy("it is not a JSON object")
    return record


def _copy(record: Mapping[str, Any], etag: str | None) -> Copy:
    revision, updated_at = record.get("revision"), record.get("updated_at")
    if not is_revision(revision):
        raise NotACopy("`revision` is not a whole number")
    if not is_number(updated_at):
        raise NotACopy("`updated_at` is not a number")
    flags = record.get("flags")
    if not isinstance(flags, dict):
        raise NotACopy("`flags` is not an object")
    held = MappingProxyType({key: _flag(key, flag) for key, flag in flags.items()})
    return Copy(str(record.get("environment", "")), revision, updated_at, held, etag)


def _flag(key: str, flag: Any) -> Flag:
    if not isinstance(flag, dict) or not isinstance(flag.get("enabled"), bool):
        raise NotACopy(f"the flag {key!r} does not say whether it is enabled")
    return Flag(flag["enabled"], flag.get("value"))
