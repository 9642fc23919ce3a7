"""How many ranks can meet through hpcdl's rendezvous before it takes too long: measured with simulated ranks.

``record`` starts real ranks of Horovod against the real server, and counts what they ask it for. ``measure`` starts the
same server in a process of its own, and lets threads ask for the same, as Horovod's client does: a connection for each
request, no header but its length, the next request when the answer is there. Nothing but the server's work is measured:
no connections between the ranks, no network. ``auto`` takes its limit from the table in docs/launching.md.

Synopsis::

    python tools/rendezvous_limit.py record --ranks 4 --per-node 2
    python tools/rendezvous_limit.py measure 16 32 64 128 256
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, before anything is installed

from hpcdl.common.errors import BadInput, HpcdlError  # noqa: E402
from hpcdl.runtime.rendezvous import plan_ranks  # noqa: E402
from tools.environments import guarded  # noqa: E402

#: Bytes of one address in Gloo's own form; a rank writes one for every other rank of a communicator.
BYTES_OF_ADDRESS = 136
_HOST_NAME = b"a-node-of-a-cluster"
_HASH = "_process_set_hash_1"
_ADDRESS = "127.0.0.1"
_RETRY_S = 0.01
_GIVE_UP_S = 600.0


@dataclass(frozen=True)
class Scope:
    """A communicator of Horovod's: the name of its keys, and the ranks in it."""

    name: str
    members: Tuple[int, ...]


def scopes_of(rank: int, world_size: int, per_node: int) -> List[Scope]:
    """Lists the communicators that a rank joins, in Horovod's order: global, local, cross, and again for its set."""
    node, local_rank = divmod(rank, per_node)
    base = [
        ("global", tuple(range(world_size))),
        (f"local_n{node}-{node}", tuple(range(node * per_node, min((node + 1) * per_node, world_size)))),
        (f"cross_{local_rank}", tuple(range(local_rank, world_size, per_node))),
    ]
    return [Scope(name + again, members) for again in ("", _HASH) for name, members in base]


def plan(world_size: int, per_node: int) -> List[Dict[str, Any]]:
    """Gives every rank its place, as ranks of nodes ``n0``, ``n1``, ... would be given it."""
    announced = [
        {
            "rank": rank,
            "world_size": world_size,
            "local_rank": rank % per_node,
            "node_rank": rank // per_node,
            "hostname": f"n{rank // per_node}",
            "addresses": [f"{_ADDRESS}/8"],
        }
        for rank in range(world_size)
    ]
    return plan_ranks(announced)


def meet(port: int, rank: int, world_size: int, per_node: int, counts: Dict[str, int]) -> None:
    """Asks the server for what a rank of Horovod asks it for, which `record` shows.

    In each communicator it writes its host's name and reads those of the ranks before it, then writes its addresses and
    reads those of all others, each twice: once to see that they are there.
    """
    for scope in scopes_of(rank, world_size, per_node):
        size, own = len(scope.members), scope.members.index(rank)
        _ask(port, "PUT", f"/{scope.name}/rank_{own}", _HOST_NAME, counts)
        for other in range(own):
            _wait(port, f"/{scope.name}/rank_{other}", counts)
        _ask(port, "PUT", f"/{scope.name}/{own}", bytes(BYTES_OF_ADDRESS * (size - 1)), counts)
        for other in range(size):
            if other != own:
                _wait(port, f"/{scope.name}/{other}", counts)
                _ask(port, "GET", f"/{scope.name}/{other}", b"", counts)
        _ask(port, "DELETE", f"/{scope.name}/{own}", b"", counts)


def requests_without_repeats(world_size: int, per_node: int) -> int:
    """Counts what `meet` asks for if all that a rank reads is there at once."""
    sizes = [
        len(scope.members) for rank in range(world_size) for scope in scopes_of(rank, world_size, per_node)
    ]
    # In a communicator of s ranks each writes twice, deletes once, and reads twice the addresses of s - 1; the names of
    # those before it are (s - 1) / 2 in the mean.
    return sum(2 * (3 + 2 * (size - 1)) + size - 1 for size in sizes) // 2


def of_pair(requests: int, world_size: int) -> float:
    """Shares requests out among the ordered pairs: a rank, and another one that it asks for."""
    return requests / (world_size * (world_size - 1))


def _wait(port: int, path: str, counts: Dict[str, int]) -> None:
    while _ask(port, "GET", path, b"", counts) != 200:
        time.sleep(_RETRY_S)


def _ask(port: int, method: str, path: str, body: bytes, counts: Dict[str, int]) -> int:
    length = f"Content-Length: {len(body)}\r\n" if method == "PUT" else ""
    with socket.create_connection((_ADDRESS, port), timeout=_GIVE_UP_S) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode() + body)
        answer = bytearray()
        while True:
            chunk = connection.recv(1 << 16)
            if not chunk:
                break
            answer += chunk
    counts[method] = counts.get(method, 0) + 1
    return int(answer[9:12])


_SERVER = """
import sys, threading
from hpcdl.runtime.rendezvous_server import Store, serve
from tools.rendezvous_limit import plan
print(serve(sys.argv[1], Store(plan(int(sys.argv[2]), int(sys.argv[3]))), {sys.argv[1]}), flush=True)
next(t for t in threading.enumerate() if t.name == "hpcdl-rendezvous").join()
"""


def measure(world_size: int, per_node: int) -> Tuple[float, float, int]:
    """Lets simulated ranks meet through a new server.

    Returns:
        Seconds until all have met; seconds of a core that the server took, which is what it needs on a node where it
        has a core for itself; and requests that were answered.

    Raises:
        HpcdlError: They do not.
    """
    argv = [sys.executable, "-c", _SERVER, _ADDRESS, str(world_size), str(per_node)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        counts: List[Dict[str, int]] = [{} for _ in range(world_size)]
        ranks = [
            threading.Thread(target=meet, args=(port, rank, world_size, per_node, counts[rank]), daemon=True)
            for rank in range(world_size)
        ]
        started = time.monotonic()
        for one in ranks:
            one.start()
        for one in ranks:
            one.join(max(0.0, started + _GIVE_UP_S - time.monotonic()))
        took_s = time.monotonic() - started
        if any(one.is_alive() for one in ranks):
            server.kill()
            raise HpcdlError(f"{world_size} simulated ranks did not meet within {_GIVE_UP_S:g} s")
        server_s = sum(os.wait4(server.pid, 0)[2][:2])
        server.returncode = 0
    return took_s, server_s, sum(sum(count.values()) for count in counts)


_RANK = """
import os, sys, time
import horovod.tensorflow as hvd
folder, size = sys.argv[1], int(os.environ["HOROVOD_SIZE"])
open(os.path.join(folder, os.environ["HOROVOD_RANK"]), "w").close()
while len(os.listdir(folder)) < size:  # all come at once, as in a job
    time.sleep(0.01)
hvd.init()
assert hvd.size() == size
"""


def record(world_size: int, per_node: int) -> Counter[Tuple[str, str, Optional[int]]]:
    """Lets real ranks meet, and counts requests by method, communicator and bytes of the value (None: not there)."""
    from hpcdl.runtime import rendezvous_server
    from hpcdl.runtime.rendezvous import environ_of_rank

    seen: Counter[Tuple[str, str, Optional[int]]] = Counter()

    class Counting(rendezvous_server.Store):
        def answer(self, method: bytes, path: bytes, value: bytes) -> bytes:
            given = super().answer(method, path, value)
            content = value if method == b"PUT" else given.partition(b"\r\n\r\n")[2]
            size = None if b" 404 " in given[:16] else len(content)
            seen[method.decode(), _kind(path.decode().split("/")[1]), size] += 1
            return given

    ranks = plan(world_size, per_node)
    port = rendezvous_server.serve(_ADDRESS, Counting(ranks), {_ADDRESS})
    told = {"address": _ADDRESS, "port": port, "ranks": ranks}
    with tempfile.TemporaryDirectory() as folder:
        children = [
            subprocess.Popen(
                [sys.executable, "-c", _RANK, folder],
                env={**os.environ, **environ_of_rank(told, rank, "lo"), "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            for rank in range(world_size)
        ]
        if any([child.wait() for child in children]):
            raise HpcdlError("a rank failed; see above")
    return seen


def _kind(scope: str) -> str:
    again = " of the process set" if "_process_set_" in scope else ""
    return scope.split("_")[0] + again


def main(argv: Sequence[str]) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="How many ranks can meet through hpcdl's rendezvous.")
    actions = parser.add_subparsers(dest="action", required=True)
    for name, help in (("record", "count the requests of real ranks"), ("measure", "time simulated ranks")):
        action = actions.add_parser(name, help=help)
        action.add_argument("--per-node", type=int, default=2 if name == "record" else 8, metavar="N")
        if name == "record":
            action.add_argument("--ranks", type=int, default=4, metavar="P")
        else:
            action.add_argument("ranks", type=int, nargs="+", metavar="P")
    options = parser.parse_args(list(argv))
    if options.action == "record":
        for (method, scope, size), count in sorted(record(options.ranks, options.per_node).items(), key=str):
            what = "not there yet" if size is None else f"{size} bytes"
            print(f"{method:6} {scope:26} {what:14} {count}")
        return 0
    for world_size in options.ranks:
        if world_size < 2:
            raise BadInput(f"there must be 2 ranks or more; received {world_size}; e.g. measure 16 32")
    print("| ranks | requests | without repeats | for each ordered pair | server, s of a core | all, s |")
    print("|---|---|---|---|---|---|")
    for world_size in options.ranks:
        per_node = min(options.per_node, world_size)
        took_s, server_s, requests = measure(world_size, per_node)
        asked = f"{requests} | {requests_without_repeats(world_size, per_node)} | {of_pair(requests, world_size):.1f}"
        print(f"| {world_size} | {asked} | {server_s:.1f} | {took_s:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main, sys.argv[1:]))
