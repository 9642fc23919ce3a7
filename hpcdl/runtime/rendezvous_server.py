"""The server through which Gloo's ranks exchange addresses: guarded as far as its clients allow, closed when done.

It speaks the little HTTP that Horovod's client speaks: PUT, GET and DELETE of ``/scope/key``, a connection for each.
Horovod's own server starts a thread and Python's mail parser for each request, and sends an answer in two small
packets, of which the second waits for an acknowledgement. Since Gloo connects all pairs, the server is what limits the
number of ranks; tools/rendezvous_limit.py measures it, and docs/launching.md has the table.

Synopsis::

    port = serve("127.0.0.1", Store(plan_ranks(announcements)), allowed={"127.0.0.1"})
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import AbstractSet, Any, Dict, Mapping, Optional, Sequence, Set

_LISTEN_QUEUE = 1024
_CHUNK_BYTES = 1 << 16
#: What a rank may send at most: its addresses, for some ten thousand ranks.
_LIMIT_BYTES = 1 << 21
#: What the last answers get to leave.
_LINGER_S = 1.0
#: What Horovod adds to the names of its communicators when it makes them anew for a set of ranks, of all here.
_OF_SET = b"_process_set_hash_"
_OK, _NOT_FOUND, _BAD, _REFUSED = b"200 OK", b"404 Not Found", b"400 Bad Request", b"403 Forbidden"


def serve(address: str, store: Store, allowed: AbstractSet[str]) -> int:
    """Starts the server in a thread, which ends when all ranks have said that they are connected.

    There is no server any more for process sets that are added later: hpcdl uses none.

    The client cannot carry a secret, so the guard is what can be checked: the interface, the source address, that the
    key is one which a rank of this world writes, and that its first value is the one that counts.

    Args:
        address: Own IPv4 address to listen on.
        store: Keeps what the ranks write.
        allowed: Addresses that they may come from.

    Returns:
        The port.
    """
    listener = socket.create_server((address, 0), backlog=_LISTEN_QUEUE)
    listener.setblocking(False)
    server = _Server(listener, store, allowed)
    threading.Thread(target=server.run, name="hpcdl-rendezvous", daemon=True).start()
    return int(listener.getsockname()[1])


def expected_paths(ranks: Sequence[Mapping[str, Any]]) -> Set[bytes]:
    """Lists what the ranks of a plan write: in each communicator the name of their host, then their addresses.

    Horovod does so again for the set of all ranks, in communicators of the same names with a hash behind.
    """
    paths: Set[bytes] = set()
    for one in ranks:
        for scope, index in (
            ("global", one["rank"]),
            (f"local_{one['hostname']}", one["local_rank"]),
            (f"cross_{one['local_rank']}", one["cross_rank"]),
        ):
            paths.update((f"/{scope}/rank_{index}".encode(), f"/{scope}/{index}".encode()))
    return paths


class Store:
    """Values by path, each written once and only where a rank has one to write; and which ranks are connected.

    Args:
        ranks: The place of every rank, as `hpcdl.runtime.rendezvous.plan_ranks` gives it.
    """

    def __init__(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        self._world_size = len(ranks)
        self._expected = expected_paths(ranks)
        self._hash: Optional[bytes] = None  # of the set of all ranks: the first that comes
        self._values: Dict[bytes, bytes] = {}
        self._connected: Set[bytes] = set()

    @property
    def is_done(self) -> bool:
        """Whether all ranks are connected."""
        return len(self._connected) == self._world_size

    def answer(self, method: bytes, path: bytes, value: bytes) -> bytes:
        """Takes a request, and gives the answer as it goes over the wire."""
        status, content = _OK, b""
        if method == b"GET":
            found = self._values.get(path)
            status, content = (_NOT_FOUND, b"") if found is None else (_OK, found)
        elif method not in (b"PUT", b"DELETE"):
            status = _BAD
        elif not self._is_expected(path):
            status = _REFUSED
        elif method == b"PUT":
            self._values.setdefault(path, value)
        else:
            # A rank deletes its key in a communicator once all are connected there. It does so six times: in the
            # global, local and cross one, then in those of the process set of all ranks, of which cross is last.
            if path.startswith(b"/cross_") and _OF_SET in path:
                self._connected.add(path)
        return b"HTTP/1.0 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content)

    def _is_expected(self, path: bytes) -> bool:
        scope, of_set, rest = path.partition(_OF_SET)
        if not of_set:
            return path in self._expected
        name, slash, key = rest.partition(b"/")
        if scope + slash + key not in self._expected:
            return False
        self._hash = self._hash or name
        return name == self._hash


class _Connection:
    """One request, as it comes, and its answer, as it goes."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.incoming = bytearray()
        self.outgoing: Optional[memoryview] = None

    def receive(self, store: Store) -> bool:
        """Takes what has come, and answers when it is all there; tells whether the connection is of use any longer."""
        chunk = self.socket.recv(_CHUNK_BYTES)
        self.incoming += chunk
        head, blank, body = bytes(self.incoming).partition(b"\r\n\r\n")
        if blank and len(body) >= _content_length(head):
            words = head.split(b"\r\n", 1)[0].split(b" ")
            method, path = words[0], words[1] if len(words) > 1 else b""
            self.outgoing = memoryview(store.answer(method, path, body))
            return self.send()
        return bool(chunk) and len(self.incoming) < _LIMIT_BYTES

    def send(self) -> bool:
        """Sends what the client takes; tells whether there is more."""
        assert self.outgoing is not None
        self.outgoing = self.outgoing[self.socket.send(self.outgoing) :]
        return bool(self.outgoing)


class _Server:
    """Answers all connections in one thread, without waiting for any of them."""

    def __init__(self, listener: socket.socket, store: Store, allowed: AbstractSet[str]) -> None:
        self._listener = listener
        self._store = store
        self._allowed = allowed
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serves until all ranks are connected, and what they were told has left."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        try:
            self._serve()
        finally:
            for key in list(self._selector.get_map().values()):
                (self._listener if key.data is None else key.data.socket).close()
            self._selector.close()

    def _serve(self) -> None:
        open_connections = 0
        while not self._store.is_done or open_connections:
            ready = self._selector.select(_LINGER_S if self._store.is_done else None)
            if not ready:  # somebody holds a connection and does not speak
                break
            for key, _ in ready:
                if key.data is None:
                    open_connections += self._accept()
                elif not self._go_on(key.data):
                    open_connections -= 1

    def _accept(self) -> int:
        with contextlib.suppress(OSError):  # it has gone away already
            connection, (address, _) = self._listener.accept()
            if address in self._allowed:
                connection.setblocking(False)
                self._selector.register(connection, selectors.EVENT_READ, _Connection(connection))
                return 1
            connection.close()
        return 0

    def _go_on(self, one: _Connection) -> bool:
        """Receives or sends; tells whether the connection is still open."""
        try:
            goes_on = one.receive(self._store) if one.outgoing is None else one.send()
        except BlockingIOError:
            goes_on = True
        except OSError:
            goes_on = False
        if not goes_on:
            self._selector.unregister(one.socket)
            one.socket.close()
        elif one.outgoing is not None:
            self._selector.modify(one.socket, selectors.EVENT_WRITE, one)
        return goes_on


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return 0
