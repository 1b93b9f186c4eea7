"""Bodies that cost a sender little, and cost much to whoever parses them whole before refusing."""

from __future__ import annotations

import json

import numpy as np


def image_with(descriptors: str, more: str = "") -> bytes:
    return f'{{"images":[{{"id":"a","descriptors":{descriptors}{more}}}]}}'.encode()


def _repeated(text: str, size: int) -> str:
    return ",".join([text] * (size // (len(text) + 1)))


def _names(size: int) -> str:
    return ",".join(f'"f{n}":1' for n in range(size // 12))


def honest_registration(size: int) -> bytes:
    """Nested lists, 48 x 128, about `size` bytes."""
    rows = np.random.default_rng(0).standard_normal((48, 128)).tolist()
    image = json.dumps(rows)
    count = max(1, size // len(image))
    images = ",".join(f'{{"id":"i{n}","descriptors":{image}}}' for n in range(count))
    return f'{{"images":[{images}]}}'.encode()


def expensive_registrations(size: int) -> dict[str, tuple[bytes, str]]:
    """By name: a body of about `size` bytes, and the field that its refusal names."""
    return {
        "unknown fields": (f"{{{_names(size)}}}".encode(), "f0"),
        "unknown fields of an image": (
            image_with("[[1,2]]", f",{_names(size)}"),
            "images.0.f0",
        ),
        "rows of one": (image_with(f"[{_repeated('[1]', size)}]"), ""),
        "rows of two": (image_with(f"[{_repeated('[1,1]', size)}]"), ""),
        "no rows": (image_with(f"[{_repeated('1', size)}]"), "images.0.descriptors.0"),
        "empty rows": (image_with(f"[{_repeated('[]', size)}]"), ""),
        "one long row": (image_with(f"[[{_repeated('1', size)}]]"), "images.0.descriptors.0"),
        "texts for rows": (
            image_with(f"[{_repeated(json.dumps('x]'), size)}]"),
            "images.0.descriptors.0",
        ),
        "one long text": (image_with(f'"{"x" * size}"'), "images.0.descriptors"),
        "scales": (image_with("[[1,2]]", f',"scales":[{_repeated("1", size)}]'), "images.0.scales"),
        "a global": (
            image_with("[[1,2]]", f',"global":[{_repeated("1", size)}]'),
            "images.0.global",
        ),
        "metadata": (
            image_with("[[1,2]]", f',"metadata":{{"x":[{_repeated("1", size)}]}}'),
            "images.0.metadata",
        ),
        "names of metadata": (image_with("[[1,2]]", f',"metadata":{{{_names(size)}}}'), ""),
        "empty images": (f'{{"images":[{_repeated("{}", size)}]}}'.encode(), ""),
        "the same field": (b"{" + _repeated('"images":[]', size).encode() + b"}", ""),
        "the same id": (
            b'{"images":[{' + _repeated('"id":1', size).encode() + b"}]}",
            "",
        ),
        "a long name": (f'{{"{"x" * size}":1}}'.encode(), ""),
        "a long number": (f'{{"ttl_seconds":{"1" * size}}}'.encode(), "ttl_seconds"),
        "deep lists": (b'{"images":' + b"[" * size, ""),
        "deep objects": (b'{"images":' + b'{"a":' * (size // 5), ""),
        "escapes": (
            image_with(
                '{"dtype":"float32","shape":[1,8],"data":"' + "\\u002B" * (size // 6) + '"}'
            ),
            "images.0.descriptors.data",
        ),
    }
