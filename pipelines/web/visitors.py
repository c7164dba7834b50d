"""Who may hold connections, so that nobody can keep others out."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

_IPV6_NETWORK_BITS = 64  # the smallest network that providers hand out: its owner has all addresses in it


class Guest(Protocol):
    """A connection that is open: whose it is (see ``visitor_of``), and how readily it is cut for a newcomer.

    The lowest ``patience`` goes first; ``None`` while it is being served.
    """

    @property
    def visitor(self) -> str: ...

    @property
    def patience(self) -> int | None: ...


AnyGuest = TypeVar("AnyGuest", bound=Guest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many connections there may be; ``per_visitor`` is less than ``in_all``, so that there is always room for another
    one.
    """

    per_visitor: int
    in_all: int


def visitor_of(address: str) -> str:
    """Whom an address stands for: IPv4 for itself, IPv6 for its network of 64 bits, whose owner has every address there."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, _IPV6_NETWORK_BITS), strict=False))


def who_leaves(newcomer: AnyGuest, others: Sequence[AnyGuest], limits: Limits) -> AnyGuest | None:
    """Whose connection is cut because of a new one, of ``others``, the oldest first; ``None`` while there is room.

    Whoever waits without a whole request goes first: half requests can hold no place for long. Where all are being served,
    it is the newcomer who goes.
    """
    own = [guest for guest in others if guest.visitor == newcomer.visitor]
    if len(own) >= limits.per_visitor:
        return _first_to_go(own) or newcomer
    if len(others) < limits.in_all:
        return None
    for visitor, _ in Counter(guest.visitor for guest in others).most_common():
        leaving = _first_to_go([guest for guest in others if guest.visitor == visitor])
        if leaving is not None:
            return leaving
    return newcomer


def _first_to_go(guests: Sequence[AnyGuest]) -> AnyGuest | None:
    willing = [(guest.patience, at) for at, guest in enumerate(guests) if guest.patience is not None]
    return guests[min(willing)[1]] if willing else None
