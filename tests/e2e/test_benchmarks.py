"""The published benchmarks by the command line, on made-up files in every published format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from model.config import AmesConfig
from model.pairs.ames import AmesReranker
from tests.e2e.by_hand import (
    CONFIG,
    Made,
    figures_of,
    images_of,
    labelled_figures,
    made_roxford,
    revisited_figures,
    weights,
)
from tests.e2e.command import stdout_of
from tests.factories import LOCAL_DIM, save_tiny
from tests.minibench import Images, as_tensor, made_up, nearest, write_list, write_pickle

Roxford = tuple[Made, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), CONFIG)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> LoadedModel:
    return load_checkpoint(checkpoint, torch.device("cpu"))


@pytest.fixture(scope="module")
def roxford(tmp_path_factory: pytest.TempPathFactory) -> Roxford:
    return made_roxford(tmp_path_factory.mktemp("roxford"))


def test_a_window_of_revisited_oxford(
    roxford: Roxford,
    checkpoint: Path,
    model: LoadedModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, truth = roxford
    figures = tmp_path / "figures.json"
    arguments = ["eval", "roxford5k", "--data", made.data, "--checkpoint", checkpoint]
    output = stdout_of(capsys, *arguments, *weights(), "--window", 20, "--json", figures)
    caption = "5 queries, 50 gallery images; tiny, a window of 20, alpha 0.3, T 0.7"
    assert caption in output
    rows = figures_of(figures)
    assert list(rows) == ["easy", "medium", "hard"]
    assert [row["queries"] for row in rows.values()] == [5, 5, 4]

    def window_first(query: int, behind: list[int]) -> list[int]:
        pairs = made.listed(query, behind)
        return images_of(made.ordered(model, query, pairs[:20]) + pairs[20:])

    for protocol, row in rows.items():
        first_stage = revisited_figures(
            truth, protocol, lambda query, behind: images_of(made.listed(query, behind))
        )
        assert row["first_stage"] == pytest.approx(first_stage)
        assert row["reranked"] == pytest.approx(revisited_figures(truth, protocol, window_first))
        assert row["reranked"] != row["first_stage"]
        assert f"{100 * row['reranked']['mAP']:.2f}" in output


def test_sliding_over_revisited_oxford_with_distractors(
    roxford: Roxford,
    checkpoint: Path,
    model: LoadedModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, truth = roxford
    distractors = made_up(np.random.default_rng(2), [0, 1, 2] * 10, CONFIG)
    gallery = Images(
        np.concatenate((made.gallery.locals, distractors.locals)),
        np.concatenate((made.gallery.globals, distractors.globals)),
    )
    more = Made(made.data, made.queries, gallery, nearest(made.queries, gallery, 60))
    gallery.write(made.data / "roxford5k+1m", "dinov2_gallery")
    neighbours, figures = tmp_path / "other.pkl", tmp_path / "figures.json"
    write_pickle(neighbours, more.lists)
    arguments = ["eval", "roxford5k+1m", "--data", made.data, "--checkpoint", checkpoint]
    arguments += ["--neighbours", neighbours, "--protocols", "medium", *weights()]
    arguments += ["--sliding", "end-to-start", "--top", 40, "--window", 20, "--stride", 10]
    output = stdout_of(capsys, *arguments, "--json", figures)
    assert "reported: by Xiao et al., CVPR 2025" in output
    assert "86.5" in output
    (row,) = figures_of(figures).values()

    def slid(query: int, behind: list[int]) -> list[int]:
        pairs = more.listed(query, behind)
        for start in (20, 10, 0):
            pairs[start : start + 20] = more.ordered(model, query, pairs[start : start + 20])
        return images_of(pairs)

    assert row["reranked"] == pytest.approx(revisited_figures(truth, "medium", slid))


def test_windows_change_nothing_for_a_reranker_of_pairs(
    roxford: Roxford, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    config = AmesConfig(name="ames", extractor=CONFIG.extractor, descriptor_dim=LOCAL_DIM)
    network = AmesReranker(config)
    with torch.no_grad():
        network.classifier.weight.mul_(20)
    checkpoint = tmp_path / "ames.safetensors"
    save_checkpoint(network, checkpoint)
    arguments = ["eval", "roxford5k", "--data", roxford[0].data, "--checkpoint", checkpoint]
    arguments += ["--protocols", "medium", "--alpha", 0, "--temperature", 0.1]
    one, many = tmp_path / "one.json", tmp_path / "many.json"
    stdout_of(capsys, *arguments, "--window", 40, "--json", one)
    sliding = ["--sliding", "end-to-start", "--top", 40, "--window", 5, "--stride", 5]
    stdout_of(capsys, *arguments, *sliding, "--json", many)
    assert figures_of(one) == figures_of(many)


def test_the_grid_on_landmarks(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 756 queries, 750 of them private, eight have positives; the others are not read."""
    rng = np.random.default_rng(3)
    labels = [place % 4 for place in range(24)]
    asked = [0, 1, 2, 3, 10, 11, 12, 755]
    queries, gallery = made_up(rng, [0] * 756, CONFIG), made_up(rng, labels, CONFIG)
    like = gallery.some([place % 4 for place in asked])
    queries.locals[:] = np.nan
    queries.locals[asked], queries.globals[asked] = like.locals, like.globals + 0.3
    queries.write(tmp_path / "gldv2-test", "cvnet")
    gallery.write(tmp_path / "gldv2-index", "cvnet")
    lists = nearest(queries, gallery, 24)
    write_pickle(tmp_path / "gldv2-test" / "nn_cvnet.pkl", lists)
    right = {query: [g for g in range(24) if labels[g] == query % 4] for query in asked}
    truth = [{"ok": right.get(query, [])} for query in range(756)]
    write_pickle(tmp_path / "gldv2-test" / "gnd_gldv2-test.pkl", {"gnd": truth})
    figures = tmp_path / "figures.json"
    arguments = ["eval", "gldv2", "--data", tmp_path, "--descriptor-name", "cvnet", "--grid"]
    output = stdout_of(capsys, *arguments, "--checkpoint", checkpoint, "--json", figures)
    rows, grid = figures_of(figures), json.loads(figures.read_text())["grid"]

    def first_stage(counted: list[int]) -> float:
        total = 0.0
        for query in counted:
            hits = [image in right[query] for image in lists[1, query].tolist()]
            total += sum(sum(hits[: n + 1]) / (n + 1) for n in range(24) if hits[n]) / 6
        return total / len(counted)

    for name, counted in (("public", asked[:4]), ("private", asked[4:]), ("combined", asked)):
        assert rows[name]["queries"] == len(counted)
        assert rows[name]["first_stage"] == {"mAP@100": pytest.approx(first_stage(counted))}
    assert grid["searched_on"] == ["public"]
    assert grid["value"] == rows["public"]["reranked"]["mAP@100"]
    # Alpha 1 is in the grid, so what is found is no worse than the first stage.
    assert grid["value"] >= rows["public"]["first_stage"]["mAP@100"]
    assert f"best of the grid: --alpha {grid['alpha']:g} --temperature" in output
    assert "searched on: gldv2 public" in output


def test_products_that_ask_each_other(
    checkpoint: Path, model: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [place % 6 for place in range(24)]
    images = made_up(np.random.default_rng(4), labels, CONFIG)
    images.write(tmp_path / "sop", "dinov2_gallery")
    write_list(tmp_path / "sop" / "test_gallery.txt", labels, 24)
    made = Made(tmp_path, images, images, nearest(images, images, 12))
    write_pickle(tmp_path / "sop" / "nn_dinov2.pkl", as_tensor(made.lists))
    figures = tmp_path / "figures.json"
    arguments = ["eval", "sop", "--data", tmp_path, "--checkpoint", checkpoint, *weights()]
    assert "83.8" in stdout_of(capsys, *arguments, "--window", 8, "--json", figures)
    (row,) = figures_of(figures).values()
    others = [[p for p in made.listed(query, []) if p[0] != query] for query in range(24)]
    after = [made.ordered(model, q, pairs[:8]) + pairs[8:] for q, pairs in enumerate(others)]
    # R is 3, and the lists are too short for R@100.
    by_hand = [
        labelled_figures(labels, labels, [images_of(pairs) for pairs in rankings], 3, (1, 10))
        for rankings in (others, after)
    ]
    assert row["first_stage"] == pytest.approx(by_hand[0])
    assert row["reranked"] == pytest.approx(by_hand[1])
    assert row["reranked"] != row["first_stage"]


def test_clothes_asked_for_by_others(
    checkpoint: Path, model: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, labels = [3, 0, 2], [place % 4 for place in range(16)]
    rng = np.random.default_rng(6)
    gallery = made_up(rng, labels, CONFIG)
    queries = gallery.some(asked)
    queries.globals[:] += rng.standard_normal(queries.globals.shape)
    queries.write(tmp_path / "inshop", "dinov2_query")
    gallery.write(tmp_path / "inshop", "dinov2_gallery")
    write_list(tmp_path / "inshop" / "test_query.txt", asked, 3)
    write_list(tmp_path / "inshop" / "test_gallery.txt", labels, 16)
    made = Made(tmp_path, queries, gallery, nearest(queries, gallery, 16))
    write_pickle(tmp_path / "inshop" / "nn_dinov2.pkl", made.lists)
    figures = tmp_path / "figures.json"
    arguments = ["eval", "inshop", "--data", tmp_path, "--checkpoint", checkpoint, *weights()]
    stdout_of(capsys, *arguments, "--json", figures)
    (row,) = figures_of(figures).values()
    after = [images_of(made.ordered(model, query, made.listed(query, []))) for query in range(3)]
    # The lists are the whole gallery, so that R@20 and R@30 are known.
    assert row["reranked"] == pytest.approx(
        labelled_figures(asked, labels, after, 4, (1, 10, 20, 30))
    )
