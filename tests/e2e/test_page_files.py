"""The page's files and pictures over HTTP: nothing outside their folders can be had."""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path

import numpy as np

from model.descriptor_file import DescriptorWriter
from tests.e2e.service import RunningService, code_of, running
from tests.page_sample import ROWS, made_up, write_sample

UNSAFE = (
    "/page/sample/gallery/../rerank.json",
    "/page/sample/gallery/%2e%2e/rerank.json",
    "/page/sample/gallery/..%2frerank.json",
    "/page/sample/gallery/%2e%2e%2f%2e%2e%2fmodel%2ftiny.safetensors",
    "/page/sample/gallery//etc/passwd",
    "/page/sample/gallery/%2fetc%2fpasswd",
    "/page/sample/gallery/one",
    "/page/sample/gallery/",
    "/page/sample/gallery/one/../one/0.jpg",
    "/page/sample/gallery/none.jpg",
    "/page/sample/queries/..%5c..%5crerank.json",
    "/page/sample/queries/two.jpg%00.txt",
    "/page/sample/rerank.json",
    "/page/sample/gallery.h5",
    "/page/static/..%2fapp.py",
    "/page/static/%2e%2e/app.py",
    "/page/static/%2fetc%2fpasswd",
    "/page/static/none.js",
    "/page/static/",
    "/page",
)


def test_nothing_outside_the_folders_can_be_had(page: RunningService) -> None:
    # httpx would tidy `..` up before it sends it; this client does not.
    address = page.url.removeprefix("http://")
    for path in UNSAFE:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=20)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 404, path
            assert json.load(answer)["error"]["code"] == "not_found", path


def test_an_id_that_leads_outside_does_not(tmp_path: Path, checkpoint: Path) -> None:
    """A descriptor file is data: what it calls an image is not taken for a path on trust."""
    folders = write_sample(tmp_path / "sample", "made-up", 8, 12)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folders.gallery / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    with DescriptorWriter(
        folders.gallery_file,
        extractor="made-up",
        extractor_version="1",
        descriptors_per_image=ROWS,
        descriptor_dim=8,
        global_dim=12,
    ) as writer:
        for image_id in ("../../secret.jpg", "link.jpg", str(tmp_path / "secret.jpg")):
            writer.append(image_id, made_up(np.random.default_rng(0), 8, 12))
    with running(checkpoint, tmp_path) as service:
        assert service.http.get("/page/about").json()["no_sample"] is None
        for path in ("..%2f..%2fsecret.jpg", "link.jpg", str(tmp_path / "secret.jpg")):
            response = service.http.get(f"/page/sample/gallery/{path}")
            assert code_of(response) == (404, "not_found"), path
