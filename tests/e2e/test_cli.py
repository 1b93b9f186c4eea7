"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from model.descriptor_file import DescriptorReader
from tests.descriptor_files import write_descriptors
from tests.e2e.command import (
    error_of,
    output_of,
    program_error,
    program_output,
    run_here,
    stdout_of,
)
from tests.e2e.service import RunningService, free_port
from tests.e2e.valkey import plain_valkey
from tests.factories import save_tiny


@pytest.fixture
def descriptor_file(tmp_path: Path) -> Path:
    path = tmp_path / "gallery.h5"
    write_descriptors(path, [f"shop/{name}-{n}" for name in "abcde" for n in range(60)])
    return path


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    listed = program_output("--help")
    commands = "serve extract load collections rerank rerank-batch train eval bench"
    for command in commands.split():
        assert f"  {command} " in listed
        assert f"Usage: locore {command}" in stdout_of(capsys, command, "--help")


STARTED = """
import sys
from pathlib import Path
import torch
from model.checkpoint import load_checkpoint
from service.cli.main import COMMANDS
load_checkpoint(Path(sys.argv[1]), torch.device("cpu"))
COMMANDS["serve"]
print(*sys.modules)
"""


def test_serving_imports_neither_other_commands_nor_the_compiler(checkpoint: Path) -> None:
    """Each would make every start longer by half."""
    command = [sys.executable, "-c", STARTED, str(checkpoint)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = set(process.stdout.split())
    assert {"torch", "service.cli.serve"} <= imported
    assert not imported & {"torch._dynamo", "service.cli.evaluate", "service.cli.train"}


@pytest.mark.slow
def test_images_to_descriptors_and_on(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea", "coffee"):
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.jpg")
    (folder / "broken.jpg").write_bytes(b"no image")
    output = tmp_path / "out.h5"
    text = program_output("extract", folder, "-o", output, "--descriptors", 10)
    assert "broken.jpg: not a readable image" in text
    assert "2 images written" in text
    assert "1 could not be read" in text
    with DescriptorReader(output) as reader:
        assert reader.ids == ["chelsea.jpg", "coffee.jpg"]
        assert (reader.extractor, reader[0].count) == ("efficientnet-lite0", 10)
    Image.fromarray(skimage.data.rocket()).save(folder / "rocket.jpg")
    assert "1 images written" in program_output(
        "extract", folder, "-o", output, "--descriptors", 10
    )
    assert "another extractor or size" in program_error("extract", folder, "-o", output)
    views = tmp_path / "views.h5"
    program_output("extract", folder, "-o", views, "--descriptors", 5, "--views", 2)
    assert DescriptorReader(views).ids[:3] == ["chelsea.jpg@0", "chelsea.jpg@1", "coffee.jpg@0"]


def test_a_load_is_taken_up_where_it_broke_off(
    service: RunningService, descriptor_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["load", descriptor_file, "--url", service.url, "--collection", "cli"]
    some = DescriptorReader(descriptor_file)
    service.register({i: some[some.ids.index(i)] for i in some.ids[:130]}, collection="cli")
    assert "170 images loaded, 130 were there already" in program_output(*arguments)
    assert "0 images loaded, 300 were there already" in output_of(capsys, *arguments)
    assert "300 images loaded" in output_of(capsys, *arguments, "--replace")
    page = service.http.get("/gallery", params={"collection": "cli", "limit": 1}).json()
    assert page["count"] == 300


def test_a_reranking_as_a_table(
    service: RunningService,
    descriptor_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output_of(capsys, "load", descriptor_file, "--url", service.url, "--collection", "table")
    query = tmp_path / "query.h5"
    write_descriptors(query, ["a-query"])
    common = [query, "--url", service.url, "--collection", "table"]
    output = output_of(
        capsys, "rerank", *common, "--gallery", descriptor_file, "--top", 40, "--show", 3
    )
    assert "tiny: 40 images, 1 windows" in output
    assert output.count("shop/") == 3
    ids = tmp_path / "ids.txt"
    ids.write_text("shop/b-1\nshop/a-3\n\n")
    answer = json.loads(output_of(capsys, "rerank", *common, "--ids", ids, "--json"))
    assert {result["id"] for result in answer["results"]} == {"shop/b-1", "shop/a-3"}
    ids.write_text("nothing\n")
    assert "1 gallery ids are not registered" in error_of(capsys, "rerank", *common, "--ids", ids)
    assert "either --gallery or --ids" in error_of(capsys, "rerank", *common)


def test_a_load_straight_to_redis_serves(
    descriptor_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with plain_valkey(port, tmp_path):
        url = f"redis://127.0.0.1:{port}"
        assert "300 images loaded" in output_of(capsys, "load", descriptor_file, "--redis", url)
        assert "300 were there already" in output_of(
            capsys, "load", descriptor_file, "--redis", url
        )
        other = tmp_path / "other.h5"
        write_descriptors(other, ["a-1"], sizes=(9, 12))
        message = error_of(capsys, "load", other, "--redis", url)
        assert "images.0.descriptors: 9 numbers, but collection 'default' has 8" in message
        short = tmp_path / "short.h5"
        write_descriptors(short, ["a-1"], sizes=(8, 1))
        message = error_of(capsys, "load", short, "--redis", url)
        assert "short.h5: global: 1 numbers, but 2 to 4,096 are allowed" in message
    assert "store does not answer" in error_of(capsys, "load", descriptor_file, "--redis", url)


def test_the_service_under_load(
    service: RunningService, descriptor_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output_of(capsys, "load", descriptor_file, "--url", service.url, "--collection", "bench")
    arguments = ["--url", service.url, "--collection", "bench"]
    output = output_of(capsys, "bench", "service", *arguments, "--requests", 10, "--images", 50)
    assert "10 answers of 10 requests, 0 refused" in output
    stages = output[output.index("decode") :]
    row = next(line for line in stages.splitlines() if "." in line).split("│")
    decode, _, _, inference, added = (float(cell) for cell in row[1:6])
    assert 0 < decode < added
    assert inference > 0
    lists = ["--images", 5, "--images", 50, "--requests", 12]
    code, output, _ = run_here(
        capsys, "bench", "service", *arguments, *lists, "--rate", 20, "--slo", 60_000
    )
    assert code == 0
    row = next(line for line in output.splitlines() if "12 " in line and "." in line).split("│")
    assert [int(cell) for cell in row[2:7]] == [12, 0, 0, 0, 0]
    assert "12 requests at 20 a second, deadline 60000 ms, 5 and 50 images each" in output


def test_an_open_loop_wants_a_rate_and_a_deadline(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    message = error_of(capsys, "bench", "service", "--url", service.url, "--rate", 5)
    assert "--rate and --slo go together" in message


def test_a_model_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoint", save_tiny(tmp_path), "--images", 5, "--repeats", 1, "--profile"]
    measured = output_of(capsys, "bench", "model", *arguments)
    assert "one list of 5 images, cpu, scan by plain" in measured
    for contender in ("ELViS", "pairwise transformer", "Longformer, our size", "MaxSim"):
        assert contender in measured
    assert "aten::" in measured


def test_user_errors_are_one_line_and_exit_code_2(
    tmp_path: Path, descriptor_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*arguments: object) -> str:
        return error_of(capsys, *arguments)

    text = tmp_path / "x.h5"
    text.write_text("not HDF5")
    pickle = tmp_path / "weights.pt"
    pickle.write_bytes(b"\x80\x04.")
    checkpoint = save_tiny(tmp_path)
    assert "no such command" in wrong("nothing").lower()
    assert "no such option" in wrong("serve", "--nothing").lower()
    assert "--port / LOCORE_PORT" in wrong("serve", "--port", "many")
    assert "--device / LOCORE_DEVICE" in wrong("serve", "--device", "abacus")
    assert "no device cuda:63" in wrong("serve", "--device", "cuda:63")
    assert "--redis-url / LOCORE_REDIS_URL" in wrong("serve", "--redis-url", "http://x")
    assert "pickled weights are not loaded" in wrong("serve", "--checkpoint", pickle)
    assert "none.json: no such file" in wrong("serve", "--checkpoint", "none.safetensors")
    assert "not a readable HDF5 file" in wrong("load", text)
    assert "no.h5: no such file" in wrong("load", tmp_path / "no.h5")
    assert "no such file or folder" in wrong("extract", tmp_path / "no", "-o", tmp_path / "o.h5")
    code, _, output = run_here(capsys, "extract", text, "-o", tmp_path / "o.h5")
    assert (code, "none of the 1 images" in output.splitlines()[-1]) == (2, True)
    assert "--data" in wrong("eval", "grocery", "--checkpoint", checkpoint)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        output = program_error("serve", "--port", port, "--checkpoint", checkpoint)
        assert f"cannot listen on 127.0.0.1 port {port}" in output
    assert "LOCORE_REDIS_URL" in wrong("serve", "--redis-url", "redis://a:1,redis://b:2")
    assert "localhost:abc" in wrong("load", descriptor_file, "--url", "http://localhost:abc")
    assert "--collection" in wrong("load", descriptor_file, "--collection", "a b")
    assert "Usage: locore" in run_here(capsys)[2]
    closed = f"http://127.0.0.1:{free_port()}"
    write_descriptors(tmp_path / "one.h5", ["a-1"])
    assert closed in wrong("load", tmp_path / "one.h5", "--url", closed)
    write_descriptors(tmp_path / "odd.h5", ["a 1"])
    assert "id 'a 1'" in wrong("load", tmp_path / "odd.h5", "--url", closed)
