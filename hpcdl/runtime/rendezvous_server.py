"""Horovod's rendezvous server, guarded as far as its clients allow, and closed when its work is done.

Limit: Gloo connects all pairs, about 2.5 requests for each, and a Python server answers about 1,000 a second:
comfortable up to some hundred ranks.

Synopsis::

    port = serve("127.0.0.1", world_size=2, allowed={"127.0.0.1"})
"""

from __future__ import annotations

import socketserver
import threading
from typing import AbstractSet, Any, Set, Tuple

_POLL_S = 0.05
_LISTEN_QUEUE = 1024  # Horovod's 5 makes ranks that all come at once wait and retry


def serve(address: str, world_size: int, allowed: AbstractSet[str]) -> int:
    """Starts the server in a thread, which ends when all ranks have said that they are connected.

    There is no server any more for process sets that are added later: hpcdl uses none.

    The client cannot carry a secret, so the guard is what can be checked: the interface, the source address,
    and that the first value of a key is the one that counts.

    Args:
        address: Own IPv4 address to listen on.
        world_size: Number of ranks that will come.
        allowed: Addresses that they may come from.

    Returns:
        The port.
    """
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    connected: Set[str] = set()
    lock = threading.Lock()

    class Handler(RendezvousHandler):  # type: ignore[misc]
        def _put_value(self, scope: str, key: str, value: bytes) -> None:
            with self.server.cache_lock:
                self.server.cache.setdefault(scope, {}).setdefault(key, value)

        def do_DELETE(self) -> None:
            # A rank deletes its key in a communicator once all are connected there. It does so six times: in the
            # global, local and cross one, then in those of the process set of all ranks, of which cross is last.
            self.send_status_code(200)
            with lock:
                if self.path.startswith("/cross_") and "_process_set_" in self.path:
                    connected.add(self.path)
                is_complete = len(connected) == world_size
            if is_complete:
                self.server.shutdown()

    class Server(RendezvousHTTPServer):  # type: ignore[misc]
        request_queue_size = _LISTEN_QUEUE
        daemon_threads = True

        def server_bind(self) -> None:
            # HTTPServer's own asks for this host's full name, which can take seconds and is never used.
            socketserver.TCPServer.server_bind(self)

        def verify_request(self, request: Any, client_address: Tuple[str, int]) -> bool:
            return client_address[0] in allowed

    server = Server((address, 0), Handler, 0)

    def serve_until_connected() -> None:
        with server:
            server.serve_forever(poll_interval=_POLL_S)

    threading.Thread(target=serve_until_connected, name="hpcdl-rendezvous", daemon=True).start()
    return int(server.server_address[1])
