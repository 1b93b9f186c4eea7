"""Settings: environment variables with the prefix LOCORE_, each also a flag of `locore serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.config import DEFAULT_CHECKPOINT
from model.shipped import checkpoint_file, shipped_names
from service.gallery.urls import parse_store_url

EMBEDDED = "embedded"


class Settings(BaseSettings):
    """Field descriptions are the help texts of the flags."""

    model_config = SettingsConfigDict(
        env_prefix="LOCORE_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    redis_url: str = Field(
        EMBEDDED,
        repr=False,  # it may hold a password
        pattern=rf"^({EMBEDDED}|(rediss?|unix|rediss?\+(sentinel|cluster))://.+)$",
        description="Where the gallery is: redis://, rediss:// or unix://, redis+sentinel:// or "
        "redis+cluster://; `embedded` starts a private Valkey whose data lies under the data "
        "directory.",
    )
    data_dir: Path = Field(Path(".locore"), description="Data of the embedded store.")
    checkpoint: Path = Field(
        DEFAULT_CHECKPOINT,
        description=f"The model: a .safetensors file, or the name of one that is shipped "
        f"({', '.join(shipped_names())}).",
    )
    metrics: Annotated[dict[str, Path], NoDecode] = Field(
        {},
        description="COLLECTION=FILE of `locore fit-metric`: the metric that a collection is "
        "re-ranked in; several as a flag each, or with commas between them.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Numbers that the model computes with."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    api_key: SecretStr | None = Field(
        None, description="Key that /gallery and /rerank then ask for."
    )
    max_batch_tokens: int = Field(
        20_480, ge=1, description="Tokens of one forward pass, padding included."
    )
    max_queue_tokens: int = Field(
        1_000_000, ge=1, description="Admitted tokens above which requests are refused (429)."
    )
    max_payload_bytes: int = Field(32 << 20, ge=1, description="Largest request body.")
    max_images_per_request: int = Field(256, ge=1, description="Images of one registration.")
    cache_bytes: int = Field(
        256 << 20, ge=0, description="Memory for decoded gallery images; 0 turns the cache off."
    )
    store_dtype: Literal["float16", "float32"] = Field(
        "float16", description="Numbers that descriptors are stored as."
    )
    log_format: Literal["text", "json"] = Field("text", description="How the log is written.")
    tracing: Literal["off", "otlp"] = Field(
        "off",
        description="otlp sends spans to the OpenTelemetry collector at "
        "OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    drain_seconds: float = Field(
        30, ge=0, description="How long requests may still run after SIGTERM."
    )

    @field_validator("metrics", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        """Of the variable's text, or of the flags' texts."""
        if isinstance(value, dict):
            return value
        texts = value.split(",") if isinstance(value, str) else value
        pairs = [text.rpartition("=") for text in texts]
        wrong = [
            text for text, (name, _, path) in zip(texts, pairs, strict=True) if not name * len(path)
        ]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not COLLECTION=FILE")
        if len({name for name, _, _ in pairs}) < len(pairs):
            raise ValueError("a collection has one metric")
        return {name: path for name, _, path in pairs}

    @field_validator("checkpoint")
    @classmethod
    def _is_a_file(cls, value: Path) -> Path:
        return checkpoint_file(value)

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, value: str) -> str:
        if value != EMBEDDED:
            parse_store_url(value)
        return value
