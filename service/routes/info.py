"""GET /info: the model, its limits and defaults."""

from __future__ import annotations

from fastapi import APIRouter

from locore_client.contract import Limits, ServedExtractor, ServedModel, Sizes
from model.config import ExtractorId, ModelConfig
from model.descriptors import DescriptorSizes
from model.model_info import ModelInfo
from service.api.schemas import MAX_SHORTLIST, Info
from service.api.sizes import MAX_DIM, MIN_DIM
from service.settings import CHECKPOINTS_EXTRACTOR, NO_EXTRACTOR, Settings
from service.state import State

router = APIRouter(tags=["operation"])


@router.get("/info")
async def info(state: State) -> Info:
    """The model, the sizes it asks for, limits, defaults of a re-ranking, the extractor,
    and the collections that have a metric."""
    return describe(state.model, state.settings, state.extraction.extractor)


def describe(model: ModelInfo, settings: Settings, extractor: ExtractorId | None = None) -> Info:
    """`extractor`: what makes descriptors of pictures, once that is known."""
    config = model.config
    return Info(
        model=ServedModel(
            name=config.name,
            backbone=config.model_dump()["backbone"],
            kernel=model.kernel,
            device=model.device,
            dtype=model.dtype,
        ),
        sizes=sizes_answer(config.sizes),
        limits=Limits(
            max_images_per_request=settings.max_images_per_request,
            max_payload_bytes=settings.max_payload_bytes,
            max_rerank_bytes=min(settings.max_rerank_bytes, settings.max_payload_bytes),
            max_image_bytes=settings.max_image_bytes,
            max_shortlist=MAX_SHORTLIST,
            descriptors_per_image=config.descriptors_per_image,
            min_descriptor_dim=MIN_DIM,
            max_descriptor_dim=MAX_DIM,
            longest_window=config.longest_window,
        ),
        rerank=config.rerank,
        extractor=extractor_answer(settings, config, extractor),
        metrics=sorted(settings.metrics),
    )


def extractor_answer(
    settings: Settings, config: ModelConfig, extractor: ExtractorId | None
) -> ServedExtractor | None:
    """`extractor`: what is there, once a picture has been asked for."""
    if settings.extractor == NO_EXTRACTOR:
        return None
    if settings.extractor == CHECKPOINTS_EXTRACTOR:
        extractor = config.extractor
    if extractor is not None:
        return ServedExtractor(name=extractor.name, version=extractor.version)
    return ServedExtractor(name=settings.extractor, version=None)


def sizes_answer(sizes: DescriptorSizes | None) -> Sizes | None:
    return None if sizes is None else Sizes(local=sizes.local_dim, global_=sizes.global_dim)
