"""Which addresses a service listens on, and where it reaches itself."""

from __future__ import annotations

import socket

import pytest

from service.server import listen, own_url


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
