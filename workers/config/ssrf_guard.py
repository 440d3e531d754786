"""Decides which addresses a webhook may reach, so that a subscriber cannot probe the network.

OWASP API7:2023 (SSRF). The host is resolved once per attempt, and the connection uses exactly the
address that was checked: a name that resolves differently after the check has no effect.

- Link-local (cloud metadata), multicast, unspecified, reserved, and what carries an IPv4 packet to
  such an address: never, unless in `allow_networks`. `address_registry.py` has the table.
- Loopback and private ones: when the operator wrote that address (or `localhost`) into the URL; a
  *name* that resolves to one needs `allow_networks`.
- Plain http to a public address needs `allow_http`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import msgspec

from pipeline.config.schema import Webhook
from pipeline.errors import ConfigError, OutsideError
from workers.config.address_registry import Address, Reach, mapped, reach, without_zone

Resolve = Callable[[str, int], Sequence[str]]

MAX_ADDRESSES = 4  # limit of the addresses of one name that are tried
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_TARGET = re.compile(r"[!-~]*")  # printable ASCII without spaces: nothing that can end a header


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A checked subscriber address; `place` is its display form, without path and query."""

    scheme: str
    host: str
    port: int
    path: str
    literal: bool  # the operator wrote an IP address or `localhost`
    allow_http: bool
    networks: tuple[str, ...]

    @property
    def place(self) -> str:
        """The address without path and query."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def resolve(host: str, port: int) -> Sequence[str]:
    """Returns the addresses of a name from the system's resolver; raises OutsideError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        msg = f"{host} has no address ({error})"
        raise OutsideError(msg) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def target(settings: Webhook) -> Target:
    """Returns the address of a subscriber, checked as far as possible without a name server.

    Raises ConfigError; its text shows at most host and port: paths and queries may be secrets.
    """
    scheme, host, port, path = _parts(settings.url)
    literal = host.lower() == "localhost" or _parsed(host) is not None
    checked = Target(
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        literal=literal,
        allow_http=settings.allow_http,
        networks=_networks(settings.allow_networks),
    )
    address = _parsed(host)
    refusal = refused(checked, address) if address is not None else ""
    if not refusal and scheme == "http" and not literal:
        named = settings.allow_http or settings.allow_networks
        refusal = (
            "" if named else "plain http to a host name needs `allow_http: true`, or use https"
        )
    if refusal:
        msg = f"webhook {checked.place}: {refusal}"
        raise ConfigError(msg)
    return checked


def refused(to: Target, address: Address) -> str:
    """Returns why `address` must not be connected to, or ""."""
    given = without_zone(address)
    address = mapped(given)
    found = reach(address)
    if any(_within(network, one) for network in to.networks for one in (given, address)):
        return ""
    if found is Reach.NEVER:
        return (
            f"{address} is a link-local, metadata, multicast or reserved address; "
            "if you mean it, name its network in `allow_networks`"
        )
    if found is Reach.PRIVATE and not (to.literal and _meant(to.host, address)):
        return (
            f"the name leads to {address}, a private address; name its network in `allow_networks`"
        )
    if found is Reach.PUBLIC and to.scheme == "http" and not to.allow_http:
        return f"plain http to {address}, a public address, needs `allow_http: true`; or use https"
    return ""


def allowed(to: Target, ask: Resolve = resolve) -> list[str]:
    """Returns the addresses to connect to, in order; raises OutsideError with the reason if
    none."""
    reasons: list[str] = []
    good: list[str] = []
    for text in ask(to.host, to.port):
        reason = refused(to, ip_address(text))
        (reasons if reason else good).append(reason or text)
    if not good:
        msg = reasons[0] if reasons else f"{to.host} has no address"
        raise OutsideError(msg)
    return good[:MAX_ADDRESSES]


def _parts(url: str) -> tuple[str, str, int, str]:
    if not _TARGET.fullmatch(url) or "\\" in url:
        msg = (
            "webhook: its url holds a space, control or non-ASCII character; escape it (%20, xn--)"
        )
        raise ConfigError(msg)
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        msg = "webhook: its url cannot be read; write https://HOST[:PORT]/PATH"
        raise ConfigError(msg) from None
    if scheme not in ("http", "https") or not host:
        msg = "webhook: its url must be https://HOST[:PORT]/PATH (or http:// to your own machine)"
        raise ConfigError(msg)
    if "@" in parts.netloc or parts.fragment or port == 0:
        msg = (
            f"webhook {scheme}://{host}: no user, password, #fragment or port 0 in the url, please"
        )
        raise ConfigError(msg)
    if _parsed(host) is None and (not _named(host) or _numeric(host)):
        msg = f"webhook: {host!r} is no host name; write an IP address in its usual form"
        raise ConfigError(msg)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return scheme, host, port or (443 if scheme == "https" else 80), path


def _named(host: str) -> bool:
    return len(host) <= 253 and all(
        _LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")
    )


def _numeric(host: str) -> bool:
    """Returns whether a resolver reads the host as IPv4: 127.1, 0x7f.1, 2130706433, 0177.0.0.1."""
    try:
        socket.inet_aton(host.rstrip("."))
    except OSError:
        return False
    return True


def _parsed(host: str) -> Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id else address


def _networks(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        try:
            ip_network(name)
        except ValueError:
            msg = f"webhook: allow_networks: {name!r} is no network; write it like 10.0.0.0/8"
            raise ConfigError(msg) from None
    return tuple(names)


def _within(network: str, address: Address) -> bool:
    return address in ip_network(network)  # False for another IP version


def _meant(host: str, address: Address) -> bool:
    """Returns whether the operator wrote this address; `localhost` must resolve to this machine."""
    return address.is_loopback if host.lower() == "localhost" else True
