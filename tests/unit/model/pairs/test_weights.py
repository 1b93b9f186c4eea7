"""A published file of ELViS or AMES tells its sizes by its tensors, and none of its code runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.config import AmesConfig, ElvisConfig, ExtractorId
from model.config_file import CheckpointError
from model.formats.format_error import FormatError
from model.pairs.ames import AmesReranker
from model.pairs.elvis import ElvisReranker
from model.pairs.weights import Unwritten, pair_config, read_state, shapes_of
from tests.pairs import published_reranker

MADE_UP = ExtractorId(name="made-up", version="1")
ELVIS = ElvisConfig(
    name="e",
    extractor=MADE_UP,
    descriptor_dim=10,
    dim=24,
    vote_dim=5,
    logit_dim=6,
    dust_bin_dim=7,
)
AMES = AmesConfig(
    name="a", extractor=MADE_UP, descriptor_dim=9, dim=12, depth=3, attention_heads=2, mlp_dim=8
)


def state_of(config: ElvisConfig | AmesConfig) -> dict[str, Tensor]:
    network = ElvisReranker(config) if isinstance(config, ElvisConfig) else AmesReranker(config)
    return network.state_dict()


@pytest.mark.parametrize("bits", [None, 11])
@pytest.mark.parametrize("config", [ELVIS, AMES])
def test_sizes_are_read_from_the_tensors(
    config: ElvisConfig | AmesConfig, bits: int | None
) -> None:
    config = config.model_copy(update={"bits": bits})
    unwritten = Unwritten(config.name, "weights", extractor="made-up", extractor_version="1")
    config_read = pair_config(Path("weights.pt"), shapes_of(state_of(config)), unwritten)
    assert config_read.model_copy(update={"rerank": config.rerank}) == config
    assert config_read.sizes is not None
    assert (config_read.sizes.local_dim, config_read.sizes.global_dim) == (
        config.descriptor_dim,
        None,
    )


@pytest.mark.parametrize(
    ("config", "bits", "name", "extractor", "alpha", "temperature"),
    [
        (ELVIS, None, "dinov3_elvis_gld", "dinov3", 0.5, 0.5),
        (ELVIS, None, "siglip2_elvis_gld", "siglip2", 0.5, 0.5),
        (AMES, None, "dinov2_ames", "dinov2-vitb14-reg", 0.55, 0.3),
        (AMES, 11, "dinov2_ames_dist", "dinov2-vitb14-reg", 0.35, 0.1),
        (AMES, None, "cvnet_ames", "cvnet", 0.85, 0.8),
        (AMES, 11, "cvnet_ames_dist", "cvnet", 0.65, 0.2),
        (AMES, None, "weights", "dinov2-vitb14-reg", 0.55, 0.3),
    ],
)
def test_a_published_name_tells_the_extractor_and_how_lists_were_re_ranked(
    config: ElvisConfig | AmesConfig,
    bits: int | None,
    name: str,
    extractor: str,
    alpha: float,
    temperature: float,
) -> None:
    shapes = shapes_of(state_of(config.model_copy(update={"bits": bits})))
    config_read = pair_config(Path(f"{name}.pt"), shapes, Unwritten("mine", name))
    assert (config_read.name, config_read.extractor.name) == ("mine", extractor)
    assert (config_read.rerank.alpha, config_read.rerank.temperature) == (alpha, temperature)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (ELVIS, {"dust_bin": None}, "neither dust_bin nor mtc_token"),
        (ELVIS, {"f.0.weight": torch.zeros(5)}, r"f\.0\.weight is \(5,\), not of 2 dimensions"),
        (ELVIS, {"g.0.weight": None}, r"g\.0\.weight is absent, not of 2"),
        (ELVIS, {"f.3.bias": torch.zeros(2)}, r"f\.3\.bias is \(2,\) in the file, \(1,\) by"),
        (AMES, {"decoder.norm.weight": torch.zeros(12)}, r"decoder\.norm\.weight is \(12,\) in"),
        (AMES, {"decoder.layers.1.norm1.bias": None}, r"norm1\.bias is absent in the file"),
        (AMES, {"remap_local.0.weight": torch.zeros(13, 9)}, "not a multiple of attention_heads"),
        (AMES, {"mtc_token": torch.zeros(12, dtype=torch.int64)}, r"is of torch\.int64"),
    ],
)
def test_odd_tensors_are_named(
    config: ElvisConfig | AmesConfig,
    changes: dict[str, Tensor | None],
    message: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "odd.pt"
    state = state_of(config) | changes
    torch.save({"state": {name: t for name, t in state.items() if t is not None}}, path)
    with pytest.raises(CheckpointError, match=rf"odd\.pt: .*{message}"):
        published_reranker(path)


@pytest.mark.parametrize("content", [{"weights": {}}, {"state": {}}, {"state": {"a": 1}}, [1]])
def test_what_has_no_weights_is_named(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: no published weights"):
        read_state(tmp_path / "x.pt")


class _Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return os.mkdir, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    torch.save({"state": _Code(proof)}, tmp_path / "new.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"state": _Code(proof)}))
    for name in ("new.pt", "old.pt"):
        with pytest.raises(FormatError, match=name):
            read_state(tmp_path / name)
    assert not proof.exists()
