"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from model.checkpoint import load_checkpoint
from model.config import DEFAULT_CHECKPOINT
from model.descriptor_file import DescriptorReader
from model.evaluation.grocery import read_labels, split
from model.metric import learnt_metric
from service.cli.common import read_images
from tests.descriptor_files import write_descriptors
from tests.e2e.command import done_here, failed, refused, run_here, shown_here, succeeded
from tests.e2e.service import RunningService, free_port
from tests.e2e.valkey import plain_valkey
from tests.factories import save_tiny, tiny_config

CONFIG = tiny_config()


@pytest.fixture
def descriptor_file(tmp_path: Path) -> Path:
    path = tmp_path / "gallery.h5"
    write_descriptors(path, [f"shop/{name}-{n}" for name in "abcde" for n in range(60)])
    return path


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    listed = succeeded("--help")
    for command in ("serve", "extract", "load", "rerank", "rerank-batch", "train", "eval", "bench"):
        assert f"  {command} " in listed
        assert f"Usage: locore {command}" in shown_here(capsys, command, "--help")


def test_images_to_descriptors_and_on(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea", "coffee"):
        Image.fromarray(getattr(skimage.data, name)()).save(folder / f"{name}.jpg")
    (folder / "broken.jpg").write_bytes(b"no image")
    output = tmp_path / "out.h5"
    said = succeeded("extract", folder, "-o", output, "--descriptors", 10)
    assert "broken.jpg: not a readable image" in said
    assert "2 images written" in said
    assert "1 could not be read" in said
    with DescriptorReader(output) as reader:
        assert reader.ids == ["chelsea.jpg", "coffee.jpg"]
        assert (reader.extractor, reader[0].count) == ("efficientnet-lite0", 10)
    Image.fromarray(skimage.data.rocket()).save(folder / "rocket.jpg")
    assert "1 images written" in succeeded("extract", folder, "-o", output, "--descriptors", 10)
    assert "another extractor or size" in failed("extract", folder, "-o", output)
    views = tmp_path / "views.h5"
    succeeded("extract", folder, "-o", views, "--descriptors", 5, "--views", 2)
    assert DescriptorReader(views).ids[:3] == ["chelsea.jpg@0", "chelsea.jpg@1", "coffee.jpg@0"]


def test_a_load_is_taken_up_where_it_broke_off(
    service: RunningService, descriptor_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["load", descriptor_file, "--url", service.url, "--collection", "cli"]
    some = DescriptorReader(descriptor_file)
    service.register({i: some[some.ids.index(i)] for i in some.ids[:130]}, collection="cli")
    assert "170 images loaded, 130 were there already" in succeeded(*arguments)
    assert "0 images loaded, 300 were there already" in done_here(capsys, *arguments)
    assert "300 images loaded" in done_here(capsys, *arguments, "--replace")
    page = service.http.get("/gallery", params={"collection": "cli", "limit": 1}).json()
    assert page["count"] == 300


def test_a_reranking_as_a_table(
    service: RunningService,
    descriptor_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    succeeded("load", descriptor_file, "--url", service.url, "--collection", "table")
    query = tmp_path / "query.h5"
    write_descriptors(query, ["a-query"])
    common = [query, "--url", service.url, "--collection", "table"]
    shown = done_here(
        capsys, "rerank", *common, "--gallery", descriptor_file, "--top", 40, "--show", 3
    )
    assert "tiny: 40 images, 1 windows" in shown
    assert shown.count("shop/") == 3
    ids = tmp_path / "ids.txt"
    ids.write_text("shop/b-1\nshop/a-3\n\n")
    answer = json.loads(done_here(capsys, "rerank", *common, "--ids", ids, "--json"))
    assert {result["id"] for result in answer["results"]} == {"shop/b-1", "shop/a-3"}
    ids.write_text("nothing\n")
    assert "1 gallery ids are not registered" in refused(capsys, "rerank", *common, "--ids", ids)
    assert "either --gallery or --ids" in refused(capsys, "rerank", *common)


def test_a_load_straight_to_redis_serves(
    descriptor_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with plain_valkey(port, tmp_path):
        url = f"redis://127.0.0.1:{port}"
        assert "300 images loaded" in succeeded("load", descriptor_file, "--redis", url)
        assert "300 were there already" in done_here(
            capsys, "load", descriptor_file, "--redis", url
        )
        other = tmp_path / "other.h5"
        write_descriptors(other, ["a-1"], sizes=(9, 12))
        said = refused(capsys, "load", other, "--redis", url)
        assert "images.0.descriptors: 9 numbers, where collection 'default' has 8" in said
        short = tmp_path / "short.h5"
        write_descriptors(short, ["a-1"], sizes=(8, 1))
        said = refused(capsys, "load", short, "--redis", url)
        assert "short.h5: global: 1 numbers, where 2 to 4,096 may be" in said
    assert "store does not answer" in refused(capsys, "load", descriptor_file, "--redis", url)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A data set of twelve classes in the grocery layout, with its descriptors."""
    ids = [
        f"{split}/c{c}-{n}.jpg" for c in range(12) for split in ("train", "test") for n in range(9)
    ]
    lines = ["path,class_id,coarse_class_id,class_name,source_split"]
    lines += [f"{i},{i.split('/c')[1].split('-')[0]},0,x,{i.split('/')[0]}" for i in ids]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    write_descriptors(folder / "descriptors.h5", ids)
    return folder


def test_training_evaluating_and_measuring(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    descriptors = dataset / "descriptors.h5"
    trained = tmp_path / "new.safetensors"
    common = ["--data", dataset, "--descriptors", descriptors]
    sizes = ["--steps", 30, "--dim", 32, "--depth", 1, "--device", "cpu"]
    said = succeeded("train", *common, *sizes, "-o", trained)
    assert "on the validation images with the logit of" in said
    # The metric is of the classes that are trained on, none of those that are judged.
    training, _ = split(read_labels(dataset), 0)
    images = read_images(descriptors, training.ids)[1]
    expected = learnt_metric([([images[i] for i in training.ids], training.classes)])
    found = load_checkpoint(trained, torch.device("cpu")).reranker.state_dict()["metric"]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    log = [json.loads(line) for line in (tmp_path / "new.run" / "log.jsonl").open()]
    assert [line["step"] for line in log] == [25, 30]
    said = done_here(capsys, "train", *common, *sizes, "-o", trained, "--resume")
    assert "on the validation images" in said
    other = [*common, *sizes[2:], "--steps", 31, "-o", trained, "--resume"]
    assert "other sizes, options or data" in refused(capsys, "train", *other)

    figures = tmp_path / "figures.json"
    shown = done_here(
        capsys, "eval", "grocery", *common, "--checkpoint", trained, "--json", figures
    )
    assert "27 queries, 27 gallery images" in shown
    rows = {row["method"]: row for row in json.loads(figures.read_text())}
    assert list(rows) == ["first stage", "Chamfer", "new"]
    assert rows["Chamfer"]["map_at_r"] >= rows["first stage"]["map_at_r"]
    assert all(0 <= row["recall_at_1"] <= 1 for row in rows.values())

    measured = done_here(
        capsys, "bench", "model", "--checkpoint", trained, "--images", 5, "--repeats", 1
    )
    assert "new, 5 images a window, cpu, scan by plain" in measured


def test_adapting_to_a_folder_of_images_without_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    photograph = Image.fromarray(skimage.data.astronaut())
    for n in range(10):
        place = 30 * n
        photograph.crop((place, place, place + 180, place + 160)).save(folder / f"{n}.png")
    adapted = tmp_path / "mine.safetensors"
    said = succeeded("train", "--images", folder, "--from", "--steps", 2, "-o", adapted)
    assert "on the validation images" in said
    of_mine, of_shipped = (
        load_checkpoint(path, torch.device("cpu")) for path in (adapted, DEFAULT_CHECKPOINT)
    )
    config, shipped = of_mine.config, of_shipped.config
    assert config.name == "mine"
    metrics = [loaded.reranker.state_dict()["metric"] for loaded in (of_mine, of_shipped)]
    assert torch.equal(*metrics)
    changed = {"name": "", "rerank": shipped.rerank, "aggregation": "sep", "held_out_classes": ()}
    assert config.model_copy(update=changed) == shipped.model_copy(update=changed)
    views = tmp_path / "mine.run" / "views.h5"
    shown = done_here(capsys, "eval", "views", "--descriptors", views, "--checkpoint", adapted)
    assert "20 queries, 20 gallery images" in shown
    assert "--descriptors" in refused(capsys, "eval", "views")
    assert "has its own backbone and sizes" in refused(
        capsys, "train", "--images", folder, "--from", "--dim", 32, "-o", adapted
    )


def test_the_table_of_the_comparison(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, figures, plot = tmp_path / "runs", tmp_path / "table.json", tmp_path / "plot.svg"
    arguments = ["eval", "grocery", "--table", "--data", dataset, "--runs", runs]
    arguments += ["--descriptors", dataset / "descriptors.h5", "--minutes", 0.02]
    arguments += ["--folds", "0,1", "--only", "ours", "--only", "ours, no mixer"]
    shown = succeeded(*arguments, "--json", figures, "--plot", plot)
    assert "k-reciprocal" in shown
    rows = {row["name"]: row for row in json.loads(figures.read_text())}
    assert rows["first stage"]["map_gain"]["mean"] == 0
    assert rows["ours"]["parameters"] > rows["ours, no mixer"]["parameters"]
    assert rows["ours"]["kendall_tau"] > 0.99
    assert plot.read_text().startswith("<?xml")
    # What was trained is kept: only the untimed rows of a second table can differ.
    states = {path: path.stat().st_mtime_ns for path in runs.glob("*/state.pt")}
    assert len(states) == 4
    done_here(capsys, *arguments, "--json", figures)
    again = {row["name"]: row for row in json.loads(figures.read_text())}
    assert again["ours"]["map_at_r"] == rows["ours"]["map_at_r"]
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/state.pt")} == states
    # Another budget is another trial.
    by_steps = done_here(capsys, *arguments, "--folds", "0", "--only", "ours", "--steps", 3)
    assert "ours" in by_steps
    assert len(list(runs.glob("*/state.pt"))) == 6
    assert "numbers with commas" in refused(capsys, *arguments, "--folds", "x")
    assert "folds are 0 to 3" in refused(capsys, *arguments, "--folds", "9")
    assert "is none of: ours; " in refused(capsys, *arguments, "--only", "theirs")


def test_the_service_under_load(
    service: RunningService, checkpoint: Path, descriptor_file: Path
) -> None:
    succeeded("load", descriptor_file, "--url", service.url, "--collection", "bench")
    arguments = ["--url", service.url, "--collection", "bench", "--checkpoint", checkpoint]
    shown = succeeded("bench", "service", *arguments, "--requests", 10, "--images", 50)
    assert "10 answers of 10 requests, 0 refused" in shown


def test_user_errors_are_one_line_and_exit_code_2(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*arguments: object) -> str:
        return refused(capsys, *arguments)

    text = tmp_path / "x.h5"
    text.write_text("not HDF5")
    pickle = tmp_path / "weights.pt"
    pickle.write_bytes(b"\x80\x04.")
    checkpoint = save_tiny(tmp_path)
    out = tmp_path / "out.safetensors"
    common = ["train", "--data", dataset, "-o", out]
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
    code, _, said = run_here(capsys, "extract", text, "-o", tmp_path / "o.h5")
    assert (code, "none of the 1 images" in said.splitlines()[-1]) == (2, True)
    assert "--data" in wrong("eval", "grocery", "--checkpoint", checkpoint)
    assert "not a readable HDF5 file" in wrong(*common, "--descriptors", text)
    assert "must end in .safetensors" in wrong(
        "train", "--data", dataset, "--descriptors", text, "-o", tmp_path / "x.pt"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = failed("serve", "--port", port, "--checkpoint", checkpoint)
        assert f"cannot listen on 127.0.0.1 port {port}" in said
    assert "LOCORE_REDIS_URL" in wrong("serve", "--redis-url", "redis://a:1,redis://b:2")
    assert "multiple" in wrong(*common, "--descriptors", dataset / "descriptors.h5", "--dim", 33)
    assert "localhost:abc" in wrong(
        "load", dataset / "descriptors.h5", "--url", "http://localhost:abc"
    )
    assert "--collection" in wrong("load", dataset / "descriptors.h5", "--collection", "a b")
    assert "Usage: locore" in run_here(capsys)[2]
    closed = f"http://127.0.0.1:{free_port()}"
    write_descriptors(tmp_path / "one.h5", ["a-1"])
    assert closed in wrong("load", tmp_path / "one.h5", "--url", closed)
    write_descriptors(tmp_path / "odd.h5", ["a 1"])
    assert "id 'a 1'" in wrong("load", tmp_path / "odd.h5", "--url", closed)
