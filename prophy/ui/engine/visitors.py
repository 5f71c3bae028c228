"""What comes from a visitor's browser, and may therefore be anything: their secret, events' data, the page's link."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping

OWN_RUNS_KEPT = 24
AGENT = "x-prophy-agent"  #: header of a call by the Model Context Protocol: a name that :mod:`prophy.ui.gate` gives it
_SECRET = re.compile(r"[0-9a-f]{64}")  # 256 random bits, as static/visitor.js makes them


def address_of(peer: str | None, forwarded: str | None) -> str:
    """The address that a visitor's limits are counted by; empty where it says nothing, as on one's own machine.

    It is the last one of the public internet among those that proxies passed on and the peer itself: what a visitor
    writes into the header stands before what the proxies add. Of IPv6 it is the network of 64 bits: one connection has
    at least that to itself (RFC 6177), and may come from each of its addresses.

    Args:
        peer: address of the other end of the connection.
        forwarded: the header ``X-Forwarded-For``.
    """
    passed_on = [host.strip() for host in (forwarded or "").split(",") if host.strip()]
    known = [address for host in (*passed_on, peer) if (address := _address(host)) is not None]
    for address in reversed(known):
        if address.is_global:
            return str(address if address.version == 4 else ipaddress.IPv6Network((int(address), 64), strict=False))
    nearest = known[-2:][0] if passed_on and len(known) > 1 else next(iter(known), None)
    return "" if nearest is None or nearest.is_loopback else str(nearest)


def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address((text or "").strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address  # a socket for both kinds writes IPv4 as IPv6


def agent_of(name: str) -> str:
    """The session of one call of an agent, to ask :class:`prophy.ui.engine.presence.Presence` whether it is awaited."""
    return f"agent {name}"


def run_of(query: Mapping[str, str]) -> str | None:
    """The run that ``?run=`` names, unchecked. What else an address says of it is the routing view's to read."""
    return query.get("run") or None


def pair_of(query: Mapping[str, str]) -> tuple[str, str] | None:
    """The two runs that ``?a=`` and ``?b=`` name, unchecked; None where it is not two."""
    a, b = query.get("a"), query.get("b")
    return (a, b) if a and b else None


def owner_of(secret: object) -> str:
    """The digest that stands for a visitor: what is kept beside their runs. Empty for whoever brought no secret."""
    if not isinstance(secret, str) or _SECRET.fullmatch(secret) is None:
        return ""
    return hashlib.sha256(f"prophy visitor {secret}".encode()).hexdigest()


def told(data: object, name: str) -> str:
    """A text in the data of an event; empty if there is none."""
    value = data.get(name) if isinstance(data, Mapping) else None
    return value if isinstance(value, str) else ""
