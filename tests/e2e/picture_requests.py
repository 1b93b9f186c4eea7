"""Requests whose images come as pictures."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from tests.e2e.service import RunningService
from tests.pictures import PHOTOGRAPHS, photograph

PICTURES = {f"{name}.jpg": photograph(name) for name in PHOTOGRAPHS}
QUERY = photograph("chelsea", 120)


def in_json(data: bytes) -> dict[str, str]:
    return {"data": base64.b64encode(data).decode()}


def register(service: RunningService, pictures: dict[str, bytes], **fields: Any) -> httpx.Response:
    images = [{"id": name, "image": in_json(data)} for name, data in pictures.items()]
    return service.http.post("/gallery", json={"images": images, **fields})


def rerank(service: RunningService, query: dict[str, Any], **fields: Any) -> httpx.Response:
    body = {"query": query, "gallery_ids": list(PICTURES), **fields}
    return service.http.post("/rerank", json=body)
