"""Settings: environment variables with the prefix LOCORE_, each also a flag of `locore serve`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from model.config import DEFAULT_CHECKPOINT
from model.extraction.registry import registered
from model.quantisation import STORE_DTYPES, StoreDtype
from model.shipped import checkpoint_file, shipped_names
from service.gallery.record import DEFAULT_STORE_DTYPE
from service.gallery.urls import parse_store_url

EMBEDDED = "embedded"
CHECKPOINTS_EXTRACTOR, NO_EXTRACTOR = "checkpoint", "none"

_ORIGIN = re.compile(r"https?://[a-z0-9.\-_\[\]:]+")
_LINK = re.compile(r"(tcp|udp|sctp)://.+:\d+")


class _Environment(EnvSettingsSource):
    """Environment variables, except those not meant for us: for a Service or a linked container
    called `locore`, Kubernetes and Docker set LOCORE_PORT=tcp://ADDRESS:PORT."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        if isinstance(value, str) and _LINK.fullmatch(value):
            value = None
        return value, key, is_complex


class Settings(BaseSettings):
    """Field descriptions are the help texts of the flags."""

    model_config = SettingsConfigDict(
        env_prefix="LOCORE_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # the input may be a key or a password
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
        "re-ranked in; for several, repeat the flag or separate them by commas.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Number type that the model computes with."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    root_path: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~\-]+)*$",
        description="Path under which a proxy serves this, such as /locore.",
    )
    api_key: SecretStr | None = Field(
        None, description="Key that is then required for re-ranking and for all that is stored."
    )
    read_key: SecretStr | None = Field(
        None, description="A second key, which may re-rank and read but change nothing."
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins of other sites whose pages may use this, separated by commas; "
        "* allows all.",
    )
    max_connections: int = Field(
        2000,
        ge=1,
        description="Connections that are open at a time. While the service is busy, a quarter of "
        "them may have a request that waits.",
    )
    keep_alive_seconds: int = Field(
        75, ge=1, description="How long a connection may wait for its next request."
    )
    max_batch_tokens: int = Field(
        20_480, ge=1, description="Tokens of one forward pass, with padding."
    )
    max_queue_tokens: int = Field(
        1_000_000, ge=1, description="Admitted tokens above which requests are refused (429)."
    )
    max_payload_bytes: int = Field(32 << 20, ge=1, description="Largest request body.")
    max_rerank_bytes: int = Field(8 << 20, ge=1, description="Largest body of a re-ranking.")
    extractor: str = Field(
        CHECKPOINTS_EXTRACTOR,
        description="What makes descriptors of pictures: `checkpoint` takes what the checkpoint "
        "was made with; else a name as of `locore extract --extractor`, or `none`.",
    )
    max_image_bytes: int = Field(16 << 20, ge=1, description="Largest picture, as a file.")
    max_queued_pictures: int = Field(
        64, ge=1, description="Requests with pictures above which more are refused (429)."
    )
    max_images_per_request: int = Field(256, ge=1, description="Images of one registration.")
    cache_bytes: int = Field(
        256 << 20, ge=0, description="Memory for decoded gallery images; 0 turns the cache off."
    )
    store_dtype: StoreDtype = Field(
        DEFAULT_STORE_DTYPE,
        description=f"Number type of stored descriptors: {', '.join(STORE_DTYPES)}.",
    )
    pool_locals: int | None = Field(
        None,
        ge=1,
        description="The most locals of a stored image; the most similar ones are merged.",
    )
    thumbnail_bytes: int = Field(
        1 << 30,
        ge=0,
        description="Bytes that the thumbnails of all collections may take in the store; "
        "0 keeps none.",
    )
    thumbnail_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins from which the page may show an image's `thumbnail_url`, with commas "
        "between them.",
    )
    page_bytes: int = Field(
        512 << 20,
        ge=0,
        description="Memory for the globals that the page searches; 0 leaves its first stage out.",
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: Any,
        **__: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls)

    @field_validator("metrics", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        """Parses the variable's text, or the flags' texts."""
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

    @field_validator("api_key", "read_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        """Strips the newline of a secret that was made from a file."""
        if value is None:
            return None
        key = value.get_secret_value().strip()
        if not re.fullmatch(r"[!-~]+", key):
            # Not the value itself: messages are printed.
            raise ValueError("a key has only ASCII letters, digits and signs, and no spaces")
        return SecretStr(key)

    @field_validator("allowed_origins", "thumbnail_origins", mode="before")
    @classmethod
    def _origins(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        origins = tuple(text.strip().lower() for text in value.split(",") if text.strip())
        for origin in origins:
            any_at_all = origin == "*" and info.field_name == "allowed_origins"
            if not any_at_all and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin such as https://shop.example")
        return origins

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        if self.read_key is not None and self.api_key is None:
            raise ValueError("read_key: needs an api_key too")
        if self.read_key is not None and self.read_key == self.api_key:
            raise ValueError("read_key: must differ from api_key, which may do everything")
        return self

    @field_validator("extractor")
    @classmethod
    def _is_an_extractor(cls, value: str) -> str:
        if value not in (CHECKPOINTS_EXTRACTOR, NO_EXTRACTOR):
            registered(value)
        return value

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
