"""IPv4 addresses of this machine's network interfaces, by the kernel's word; no name is resolved.

(A host's own name often resolves to 127.0.1.1, which is of no use to another node.)

Synopsis::

    addresses = ipv4_interfaces()                        # {"lo": 127.0.0.1/8, "ib0": 10.0.0.7/16}
    first_present("hsn,ib0", addresses)                  # "ib0"
    own = address_towards("10.0.0.8")                    # "10.0.0.7"
    interface_of(own, addresses)                         # "ib0"
"""

from __future__ import annotations

import fcntl
import socket
import struct
from ipaddress import IPv4Interface
from typing import Dict, Mapping, Optional

from hpcdl.common.errors import HpcdlError

_SIOCGIFADDR, _SIOCGIFNETMASK = (
    0x8915,
    0x891B,
)  # linux/sockios.h: the address of an interface, and how wide its network


def ipv4_interfaces() -> Dict[str, IPv4Interface]:
    """Lists the interfaces that have an IPv4 address, with their networks, as the kernel numbers them."""
    addresses = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            asked = struct.pack("256s", name.encode()[:15])
            try:
                address, mask = (
                    socket.inet_ntoa(fcntl.ioctl(probe.fileno(), what, asked)[20:24])
                    for what in (_SIOCGIFADDR, _SIOCGIFNETMASK)
                )
            except OSError:  # it has none
                continue
            addresses[name] = IPv4Interface(f"{address}/{mask}")
    return addresses


def first_present(names: str, addresses: Mapping[str, IPv4Interface]) -> Optional[str]:
    """Gives the first interface of a list such as ``hsn0,hsn1,ib`` that is there; None: none of them is.

    The begin of a name will do, as for NCCL.
    """
    for wanted in (part.strip() for part in names.split(",")):
        for name in (*(one for one in addresses if one == wanted), *addresses):
            if wanted and name.startswith(wanted):
                return name
    return None


def address_towards(address: str) -> str:
    """Gives the own address that packets to another one would carry. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError as problem:
            raise HpcdlError(f"no way leads from here to {address}: {problem.strerror}") from problem
        return str(probe.getsockname()[0])


def interface_of(address: str, addresses: Mapping[str, IPv4Interface]) -> str:
    """Names the interface that has an address; connections to an own address go through ``lo``."""
    for name, own in addresses.items():
        if str(own.ip) == address:
            return name
    found = ", ".join(f"{name} {own.ip}" for name, own in addresses.items())
    raise HpcdlError(f"no interface has the address {address}; found {found}")
