"""The metrics of all replicas in one answer: each series with the replica that it is of.

No I/O: Prometheus text in, Prometheus text out.
"""

from __future__ import annotations

from collections.abc import Mapping


def merged(texts: Mapping[str, str]) -> str:
    """`texts`: by replica what it shows. Every series gets the label `instance`, the name that a
    scrape would have given its replica; a family's help and type come once, before its series."""
    headers: dict[str, list[str]] = {}
    series: dict[str, list[str]] = {}
    for replica, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith("#"):
                _, kind, name, *_ = line.split(" ")
                if kind == "HELP":
                    family = name
                lines = headers.setdefault(family, [])
                if line not in lines:
                    lines.append(line)
            elif line:
                series.setdefault(family, []).append(_of(replica, line))
    return "".join(
        f"{line}\n" for family in headers for line in (*headers[family], *series.get(family, ()))
    )


def _of(replica: str, line: str) -> str:
    """A series names its labels in braces, or has none."""
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{instance="{replica}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{instance="{replica}"}} {value}'
