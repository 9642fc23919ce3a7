"""IPv4 addresses of this machine's network interfaces, by the kernel's word; no name is resolved.

(A host's own name often resolves to 127.0.1.1, which is of no use to another node.)

Synopsis::

    addresses = ipv4_interfaces()                        # {"lo": "127.0.0.1", "ib0": "10.0.0.7"}
    own = address_towards("10.0.0.8")                    # "10.0.0.7"
    interface_of(own, addresses)                         # "ib0"
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Dict, Mapping

from hpcdl.common.errors import HpcdlError

_SIOCGIFADDR = 0x8915  # linux/sockios.h: the address of an interface


def ipv4_interfaces() -> Dict[str, str]:
    """Lists the interfaces that have an IPv4 address."""
    addresses = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
            addresses[name] = socket.inet_ntoa(answer[20:24])
    return addresses


def address_towards(address: str) -> str:
    """Gives the own address that packets to another one would carry. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError as problem:
            raise HpcdlError(f"no way leads from here to {address}: {problem.strerror}") from problem
        return str(probe.getsockname()[0])


def interface_of(address: str, addresses: Mapping[str, str]) -> str:
    """Names the interface that has an address; connections to an own address go through ``lo``."""
    for name, own in addresses.items():
        if own == address:
            return name
    raise HpcdlError(f"no interface has the address {address}; found {dict(addresses)}")
