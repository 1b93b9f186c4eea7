"""The proxy for a server, from the environment, read as curl does.

httpx reads it too, but sends requests to this machine through the proxy, ignores networks
(10.0.0.0/8) in NO_PROXY, and fails if it cannot parse an entry there, even one about another host.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TypedDict
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

_SCHEMES = ("http", "https", "socks5", "socks5h")


class Way(TypedDict):
    """Arguments of httpx's clients."""

    proxy: str | None
    trust_env: bool
    verify: ssl.SSLContext


def way_to(url: str) -> Way:
    """Raises what `proxy_for` raises, and OSError for missing certificates."""
    # Besides proxies, httpx would take certificates from the environment.
    return Way(proxy=proxy_for(url), trust_env=False, verify=httpx.create_ssl_context())


def proxy_for(url: str) -> str | None:
    """The URL of the proxy, None if there is none or `url` is on this machine. Raises ValueError
    for an invalid `url`, and for a proxy that cannot be used."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_loopback(host) or _is_exempt(host, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    _check(proxy)
    return proxy


def _check(proxy: str) -> None:
    """Raises ValueError; the message has no address, which may contain a password."""
    proxy_name = "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names"
    try:
        parts = urlsplit(proxy)
        well = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        well = False
    if not well:
        raise ValueError(f"{proxy_name} has no address such as http://HOST:PORT")
    if parts.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ValueError(f"{proxy_name} is a SOCKS proxy: pip install socksio, or set NO_PROXY")


def _is_loopback(host: str) -> bool:
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _is_exempt(host: str, no_proxy: str) -> bool:
    if proxy_bypass(host):
        return True
    address = _address(host)
    entries = (entry.strip() for entry in no_proxy.split(","))
    return address is not None and any(address in network for network in _networks(entries))


def _networks(entries: Iterable[str]) -> Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The `entries` that are addresses or networks, such as `[::1]` and `10.0.0.0/8`."""
    for entry in entries:
        try:
            yield ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            continue


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
