"""The sample gallery of `locore serve --sample`: made once, and registered if it is missing."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from locore_client import Client, ClientError, rerank_body
from model.config import ModelConfig
from model.descriptor_file import DescriptorFileError, DescriptorReader
from model.evaluation.retrieval import first_stage_order
from model.extraction.file_extraction import extract_to_file
from model.extraction.images import find_images
from model.extraction.registry import load_extractor
from service.cli.common import console, extraction_run, say, tracked
from service.cli.load import ThroughService, load_images
from service.page.sample.sample_folders import COLLECTION, SampleFolders
from service.page.sample.sample_views import PHOTOGRAPHS, write_views
from service.server import DrainingServer
from service.settings import Settings

QUERY = "retina-1"
"""The subject of the printed request's query."""

TOP = 100


def make_sample(root: Path, config: ModelConfig) -> SampleFolders:
    """Makes views, their descriptors and a request, unless they exist.

    Raises DescriptorFileError if they were made for another extractor.
    """
    folders = SampleFolders(root)
    if folders.request.exists():
        with DescriptorReader(folders.gallery_file) as reader:
            made_by = reader.extractor
        if made_by != config.extractor.name:
            raise DescriptorFileError(
                f"{root} was made by the extractor {made_by}; remove it, and it is made again"
            )
        return folders
    extractor = load_extractor(config.extractor.name)
    total = sum(columns * rows for columns, rows in PHOTOGRAPHS.values())
    for _ in tracked(write_views(folders), "Making the sample gallery", total):
        pass
    for images, file in (
        (folders.gallery, folders.gallery_file),
        (folders.queries, folders.queries_file),
    ):
        pictures = find_images([images])
        extract_to_file(extractor, pictures, file, config.descriptors_per_image, extraction_run())
    with DescriptorReader(folders.queries_file) as queries:
        query = queries[queries.ids.index(f"{QUERY}.jpg")]
    with DescriptorReader(folders.gallery_file) as gallery:
        order = first_stage_order(query, gallery.globals())[:TOP]
        shortlist = [gallery.ids[place] for place in order]
    body = rerank_body(query, shortlist, COLLECTION, top_n=10)
    partial = folders.request.with_suffix(".partial")
    partial.write_text(json.dumps(body))
    partial.replace(folders.request)
    return folders


def offer_sample(
    folders: SampleFolders, settings: Settings, url: str, server: DrainingServer
) -> None:
    """Runs in a thread beside the server. Once it is up, registers the sample and prints a request
    to try."""
    if server.started_state() is None:
        return
    key = settings.api_key.get_secret_value() if settings.api_key else None
    try:
        with Client(url, key) as client, DescriptorReader(folders.gallery_file) as gallery:
            registered, _ = load_images(gallery, ThroughService(client, COLLECTION))
            count = client.page(COLLECTION, limit=1).count
    except ClientError as error:
        say(f"The sample gallery could not be registered: {error}")
        return
    # Not the key itself: the output may be kept as a log.
    header = "" if key is None else '-H "Authorization: Bearer $LOCORE_API_KEY" '
    console.print(
        f"\nThe sample gallery is registered: {count} images ({registered} new), "
        f"collection `{COLLECTION}`. Paste this in another terminal:\n\n"
        f"  curl -s {url}/rerank -H 'Content-Type: application/json' {header}"
        f"-d @{shlex.quote(str(folders.request))}\n",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
