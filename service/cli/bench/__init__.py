"""locore bench: a command for each thing whose speed is measured."""

from __future__ import annotations

import click

from service.cli.bench.model import bench_model
from service.cli.bench.service import bench_service
from service.cli.bench.store import bench_store


@click.group()
def bench() -> None:
    """Measure speed: of the model alone, of a store, or of a running service under load."""


for command in (bench_model, bench_service, bench_store):
    bench.add_command(command)
