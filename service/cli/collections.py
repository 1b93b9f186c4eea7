"""locore collections: lists, empties and drops collections of a running service; moves aliases."""

from __future__ import annotations

import json
import sys

import click
from rich.filesize import decimal
from rich.table import Table

from locore_client import Client
from service.cli.common import connection_options, console

json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def collections() -> None:
    """List, empty and drop collections of a running service, and move aliases."""


@collections.command("list")
@json_option
@connection_options
def list_collections(as_json: bool, url: str, api_key: str | None) -> None:
    """List every collection with its images, lengths of descriptors, bytes and aliases."""
    with Client(url, api_key) as client:
        listing = list(client.collections())
    if as_json:
        _print_json([summary.model_dump(by_alias=True) for summary in listing])
        return
    table = Table()
    table.add_column("collection", overflow="fold")
    for title in ("images", "local", "global", "bytes"):
        table.add_column(title, justify="right")
    table.add_column("aliases", overflow="fold")
    for summary in listing:
        local, global_ = ("", "")
        if summary.sizes is not None:
            local, global_ = str(summary.sizes.local), str(summary.sizes.global_ or "")
        aliases = " ".join(summary.aliases)
        table.add_row(
            summary.name, f"{summary.count:,}", local, global_, decimal(summary.bytes), aliases
        )
    console.print(table, highlight=False, markup=False)


@collections.command()
@click.argument("collection")
@yes_option
@json_option
@connection_options
def empty(collection: str, yes: bool, as_json: bool, url: str, api_key: str | None) -> None:
    """Delete all images of COLLECTION; the collection and its aliases stay."""
    with Client(url, api_key) as client:
        if not yes:
            _ask("Empty", client, collection)
        emptied = client.empty(collection)
    if as_json:
        _print_json(emptied.model_dump())
    else:
        click.echo(f"{emptied.collection}: {emptied.deleted:,} images deleted")


@collections.command()
@click.argument("collection")
@yes_option
@connection_options
def drop(collection: str, yes: bool, url: str, api_key: str | None) -> None:
    """Delete COLLECTION and its images. A collection that an alias points at is not dropped."""
    with Client(url, api_key) as client:
        if not yes:
            _ask("Drop", client, collection)
        client.drop(collection)
    click.echo(f"{collection}: dropped")


@collections.command()
@json_option
@connection_options
def aliases(as_json: bool, url: str, api_key: str | None) -> None:
    """List every alias with its collection."""
    with Client(url, api_key) as client:
        listing = list(client.aliases())
    if as_json:
        _print_json([alias.model_dump() for alias in listing])
        return
    table = Table()
    for title in ("alias", "collection"):
        table.add_column(title, overflow="fold")
    for alias in listing:
        table.add_row(alias.alias, alias.collection)
    console.print(table, highlight=False, markup=False)


@collections.command()
@click.argument("alias")
@click.argument("collection")
@json_option
@connection_options
def alias(alias: str, collection: str, as_json: bool, url: str, api_key: str | None) -> None:
    """Make ALIAS stand for COLLECTION, in one step."""
    with Client(url, api_key) as client:
        moved = client.set_alias(alias, collection)
    if as_json:
        _print_json(moved.model_dump())
    else:
        before = f", before for {moved.previous}" if moved.previous else ""
        click.echo(f"{moved.alias}: stands for {moved.collection}{before}")


@collections.command()
@click.argument("alias")
@connection_options
def unalias(alias: str, url: str, api_key: str | None) -> None:
    """Delete ALIAS; its collection stays."""
    with Client(url, api_key) as client:
        client.delete_alias(alias)
    click.echo(f"{alias}: deleted")


def _ask(what: str, client: Client, name: str) -> None:
    """Asks for confirmation. Raises click.ClickException unless the answer is yes."""
    summary = client.collection(name)
    try:
        sure = click.confirm(f"{what} {summary.name} with {summary.count:,} images?", err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError(
            f"{summary.name}: there is no terminal to ask on; use --yes"
        ) from None
    if not sure:
        raise click.ClickException(f"{summary.name}: not changed")


def _print_json(value: object) -> None:
    console.print_json(json.dumps(value), ensure_ascii=True)
