"""Sorts IP addresses by IANA's registries of special-purpose addresses.

https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry (RFC
6890). The tables are here because those of Python's `ipaddress` differ between its versions.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address


class Reach(Enum):
    """How far an address reaches."""

    PUBLIC = "public"  # of the internet
    PRIVATE = "private"  # of this machine or of a network of the operator
    NEVER = "never"  # no service of the operator is there


_PRIVATE = tuple(
    ip_network(each)
    for each in (
        *("127.0.0.0/8", "::1/128"),  # loopback
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),  # private use
        "100.64.0.0/10",  # shared by the customers of a provider
        "fec0::/10",  # site-local: private use until RFC 3879
        # Documentation and benchmarks: some laboratories and proxies use them as private ones.
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15"),
        *("2001:db8::/32", "3fff::/20"),
    )
)
_NEVER = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8",  # this network
        *("169.254.0.0/16", "fe80::/10"),  # link-local: metadata of clouds
        *("224.0.0.0/4", "ff00::/8"),  # multicast
        "240.0.0.0/4",  # reserved, and limited broadcast
        "192.0.0.0/24",  # protocol assignments: DS-Lite, PCP, TURN, NAT64 discovery, dummy
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # protocol assignments: Teredo, PCP, TURN, benchmarks, ORCHID, drones, AMT
        "2002::/16",  # 6to4: leads to the IPv4 address in it, by a relay
        *("100.100.100.200/32", "168.63.129.16/32"),  # metadata of clouds, outside link-local
        *("fd00:ec2::254/128", "fd20:ce::254/128"),
    )
)
# All other IPv6 is unassigned, reserved, or for special use: discard-only 100::/64, SRv6 5f00::/16,
# local NAT64 64:ff9b:1::/48, IPv4-compatible ::/96.
_GLOBAL_UNICAST = ip_network("2000::/3")

# The last 32 bits of these are an IPv4 address, to which a packet goes in the end.
_CARRYING = tuple(
    ip_network(each)
    for each in (
        "::ffff:0:0/96",  # mapped: the same as IPv4
        "64:ff9b::/96",  # NAT64
    )
)
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214: bits 64 to 95; then the IPv4 address


def reach(address: Address) -> Reach:
    """Returns how far `address` and each IPv4 address in it reach: the lesser of them."""
    address = without_zone(address)
    if isinstance(address, IPv6Address):
        if any(address in network for network in _CARRYING):
            return _plain(carried(address))
        if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
            return _least(_plain(address), _plain(carried(address)))
    return _plain(address)


def without_zone(address: Address) -> Address:
    """Returns the address without the interface at which it counts (`%eth0`)."""
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address


def carried(address: Address) -> IPv4Address:
    """Returns the IPv4 address in the last 32 bits of an IPv6 one."""
    return IPv4Address(int(address) & 0xFFFF_FFFF)


def mapped(address: Address) -> Address:
    """Returns the IPv4 address of which `address` is the IPv6 form (::ffff:a.b.c.d), or itself."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _plain(address: Address) -> Reach:
    if any(address in network for network in _NEVER):
        return Reach.NEVER
    if any(address in network for network in _PRIVATE):
        return Reach.PRIVATE
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return Reach.NEVER
    return Reach.PUBLIC


def _least(*found: Reach) -> Reach:
    return max(found, key=list(Reach).index)
