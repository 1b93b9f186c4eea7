"""locore eval: a command for each benchmark."""

from __future__ import annotations

import click

from service.cli.evaluate.labelled import grocery, sample, views
from service.cli.evaluate.matrix import matrix
from service.cli.evaluate.mine import mine
from service.cli.evaluate.published import commands
from service.cli.evaluate.storage import storage


@click.group("eval")
def evaluate() -> None:
    """Compare a checkpoint with the first stage on a benchmark.

    The checkpoint is used as in the service, with windows, and with its own alpha and T unless
    options say otherwise.
    """


for command in (mine, matrix, storage, grocery, sample, views, *commands()):
    evaluate.add_command(command)
