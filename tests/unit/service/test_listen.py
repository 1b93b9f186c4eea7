"""Which addresses a service listens on, and where it reaches itself."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
import uvloop

from service.server import ACCEPTED_AT_ONCE, accepting, listen, own_url


def takes(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 2).close()
    except OSError:
        return False
    return True


both_families = pytest.mark.skipif(
    not socket.has_dualstack_ipv6(), reason="this system has no IPv6"
)


@both_families
@pytest.mark.parametrize(
    ("host", "takes_4", "takes_6", "url"),
    [
        ("127.0.0.1", True, False, "http://127.0.0.1"),
        ("localhost", True, False, "http://127.0.0.1"),
        ("0.0.0.0", True, False, "http://127.0.0.1"),  # noqa: S104
        ("::", True, True, "http://127.0.0.1"),
        ("0::0", True, True, "http://127.0.0.1"),
        ("::1", False, True, "http://[::1]"),
    ],
)
def test_addresses(host: str, takes_4: bool, takes_6: bool, url: str) -> None:
    with listen(host, 0) as listening:
        port = listening.getsockname()[1]
        assert own_url(listening) == f"{url}:{port}"
        assert (takes("127.0.0.1", port), takes("::1", port)) == (takes_4, takes_6)


@both_families
def test_a_socket_of_ipv6_alone_is_reached_by_ipv6() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as listening:
        assert own_url(listening) == f"http://[::1]:{listening.getsockname()[1]}"


@pytest.mark.parametrize("host", ["no such host", "a..b", "256.1.1.1", "[::]"])
def test_what_is_no_address_is_an_error_of_the_system(host: str) -> None:
    with pytest.raises(OSError, match=r"\w") as caught:
        listen(host, 0)
    assert caught.value.strerror


def test_long_rounds_of_the_event_loop_accept_several_connections_each() -> None:
    async def work() -> int:
        """Rounds of the event loop until all connections are made."""
        made: list[asyncio.BaseTransport] = []

        class Connection(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.append(transport)

        with listen("127.0.0.1", 0) as listening:
            loop = asyncio.get_running_loop()
            servers = [await loop.create_server(Connection, sock=s) for s in accepting(listening)]
            address = listening.getsockname()
            clients = [socket.create_connection(address, 2) for _ in range(4 * ACCEPTED_AT_ONCE)]
            rounds = 0
            while len(made) < len(clients):
                await asyncio.sleep(0)
                time.sleep(0.002)  # noqa: ASYNC251 - a round that takes long
                rounds += 1
            for client in clients:
                client.close()
            for server in servers:
                server.close()
        return rounds

    assert uvloop.run(work()) < 2 * ACCEPTED_AT_ONCE
