"""`locore rerank-batch` as a Ray Data job: the lists spread over the actors of a cluster.

    python -m deploy.ray.rerank_batch --queries Q.h5 --gallery G.h5 --shortlists LISTS.jsonl -o OUT

OUT is a folder of JSON Lines, the same lines as the command writes, in no order. The files are read
where an actor runs: on a cluster they lie on storage that all nodes see. See docs/offline.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow
import ray
import torch

from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.descriptor_file import DescriptorReader
from model.formats.shortlists import count_shortlists, parse_shortlist
from service.api.errors import ApiError
from service.api.schemas import MAX_SHORTLIST
from service.cli.common import any_checkpoint, any_path, device_of, storage_options
from service.cli.rerank_batch import list_options
from service.offline.file_reranker import OfflineOptions, OfflineReranker

_RESULT = pyarrow.struct(
    [("id", pyarrow.string()), ("index", pyarrow.int64()), ("relevance_score", pyarrow.float64())]
)
_ANSWER = pyarrow.schema(
    [
        ("query", pyarrow.string()),
        ("results", pyarrow.list_(_RESULT)),
        ("missing", pyarrow.list_(pyarrow.string())),
    ]
)
"""Written down: a block whose lists are all empty does not tell what of."""


class Reranking:
    """An actor: the model and the open files, and lists in, answers out."""

    def __init__(
        self, queries: Path, gallery: Path, checkpoint: Path, dtype: str, options: OfflineOptions
    ) -> None:
        numbers: torch.dtype = getattr(torch, dtype)
        self._reranker = OfflineReranker(
            load_checkpoint(checkpoint, device_of("auto"), numbers),
            DescriptorReader(queries),
            DescriptorReader(gallery),
            options,
        )

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> Iterator[pyarrow.Table]:
        lists = (parse_shortlist(line, MAX_SHORTLIST) for line in batch["text"])
        # The line is what the command writes: one place says what an answer looks like.
        lines = [json.loads(answer.as_line()) for answer in self._reranker.answers(lists)]
        yield pyarrow.Table.from_pylist(lines, schema=_ANSWER)


@click.command()
@click.option("--queries", type=any_path, required=True)
@click.option("--gallery", type=any_path, required=True)
@click.option("--shortlists", type=any_path, required=True, help="A file, or a folder of such.")
@click.option("-o", "--output", type=any_path, required=True, help="A folder, not there yet.")
@click.option("--actors", type=click.IntRange(1), default=1, show_default=True)
@click.option("--cpus", type=float, default=1, show_default=True, help="Of an actor.")
@click.option("--gpus", type=float, default=0, show_default=True, help="Of an actor.")
@click.option(
    "--lists", type=click.IntRange(1), default=512, show_default=True, help="Of one batch."
)
@list_options
@click.option("--checkpoint", type=any_checkpoint, default=DEFAULT_CHECKPOINT)
@click.option("--dtype", type=click.Choice(("float32", "bfloat16", "float16")), default="float32")
@storage_options("As a service would have it")
@click.option("--batch-tokens", type=click.IntRange(1), default=20_480)
@click.option("--cache-bytes", type=click.IntRange(0), default=256 << 20)
def main(
    queries: Path,
    gallery: Path,
    shortlists: Path,
    output: Path,
    actors: int,
    cpus: float,
    gpus: float,
    lists: int,
    checkpoint: Path,
    dtype: str,
    **request_options: Any,
) -> None:
    """Re-rank the shortlists of any number of queries on a Ray cluster. Options as of `locore
    rerank-batch`."""
    if output.exists():
        raise click.UsageError(f"{output}: exists already")
    options = OfflineOptions(**request_options)
    actor = (queries.resolve(), gallery.resolve(), checkpoint.resolve(), dtype, options)
    # What is wrong with the files is said here, before a cluster is busy.
    Reranking(*actor)
    total = sum(map(count_shortlists, _files(shortlists)))
    # What an actor raises, and not Ray's account of it.
    ray.data.DataContext.get_current().raise_original_map_exception = True
    lines = ray.data.read_text([str(path) for path in _files(shortlists)], drop_empty_lines=True)
    answers = lines.map_batches(
        Reranking,
        fn_constructor_args=actor,
        batch_size=lists,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    # Fifteen digits: pandas writes ten otherwise.
    answers.write_json(str(output.resolve()), orient="records", lines=True, double_precision=15)
    click.echo(f"{total} queries re-ranked, written to {output}", err=True)


def _files(shortlists: Path) -> list[Path]:
    """The file, or those of the folder: Ray reads each one whole."""
    if shortlists.is_dir():
        return sorted(path.resolve() for path in shortlists.iterdir())
    return [shortlists.resolve()]


def _said(error: Exception) -> str:
    """An actor's error comes wrapped in where it was raised."""
    return str(getattr(error, "cause", error))


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except click.ClickException as error:
        sys.exit(f"locore: {error.format_message()}")
    except (ApiError, OSError, ValueError) as error:
        sys.exit(f"locore: {_said(error)}")
