"""All metrics and their buckets. Series exist from the start; no label has a client's value."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ENDPOINTS = (
    *("rerank", "gallery", "gallery_image", "extract", "collections", "aliases", "info"),
    *("health", "metrics", "docs", "page", "other"),
)
_STATUSES = (
    *(200, 204, 304, 400, 401, 403, 404, 405, 409, 413, 415, 422),
    *(429, 499, 500, 501, 503, 504, 507),
)
STATUSES = tuple(str(status) for status in _STATUSES)
STAGES = ("decode", "fetch", "queue", "inference", "total")
REJECTIONS = (
    *(
        "queue_full",
        "too_late",
        "shutting_down",
        "not_ready",
        "unauthorized",
        "forbidden",
        "too_large",
    ),
    *("bodies", "connections", "requests", "malformed", "slow"),
)
EXTRACTION_REJECTIONS = ("queue_full", "too_late", "bytes")
EXTRACTION_RESULTS = ("described", "refused", "failed")
STORE_OPERATIONS = (
    *("ping", "put", "fetch", "versions", "delete", "list", "resolve", "names", "sweep"),
    "thumbnails",
)

# A re-rank from the cache takes milliseconds, a sliding window over 1,600 images on a CPU many
# seconds.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STORE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_WINDOWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)
_TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144)
_RATIOS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)

REQUESTS = Counter("locore_requests", "Answered requests.", ["endpoint", "status"])
REQUEST_SECONDS = Histogram(
    "locore_request_duration_seconds", "Time to answer.", ["endpoint"], buckets=_SECONDS
)
STAGE_SECONDS = Histogram(
    "locore_stage_duration_seconds",
    "Time that a re-ranking spent in each stage.",
    ["stage"],
    buckets=_SECONDS,
)
BATCH_WINDOWS = Histogram("locore_batch_windows", "Windows of a forward pass.", buckets=_WINDOWS)
BATCH_TOKENS = Histogram(
    "locore_batch_tokens", "Tokens of a forward pass, padding included.", buckets=_TOKENS
)
BATCH_PADDING = Histogram(
    "locore_batch_padding_ratio", "Share of a forward pass that is padding.", buckets=_RATIOS
)
QUEUE_TOKENS = Gauge("locore_queue_tokens", "Tokens of the lists that are held.")
QUEUE_TOKENS_LIMIT = Gauge("locore_queue_tokens_limit", "Tokens above which requests are refused.")
INFLIGHT = Gauge("locore_inflight_requests", "Requests being answered.")
REJECTED = Counter("locore_rejected", "Requests refused before any work.", ["reason"])
CACHE_REQUESTS = Counter("locore_cache_requests", "Images looked up in the cache.", ["result"])
CACHE_BYTES = Gauge("locore_cache_bytes", "Memory that cached images take.")
STORE_SECONDS = Histogram(
    "locore_store_duration_seconds",
    "Time of the store's operations.",
    ["operation"],
    buckets=_STORE_SECONDS,
)
READY = Gauge("locore_ready", "1 while requests are taken, whatever the store does, else 0.")
STORE_UP = Gauge("locore_store_up", "1 where the store answered last time, else 0.")
IMAGES_REGISTERED = Counter("locore_gallery_images_registered", "Images registered.")
THUMBNAILS = Counter("locore_thumbnails", "Thumbnails of registered images.", ["result"])
THUMBNAIL_BYTES = Gauge("locore_thumbnail_bytes", "What thumbnails take of the store.")
MEMORY_LIMIT = Gauge(
    "locore_memory_limit_bytes",
    "Memory that the service may take: the container's or the machine's.",
)
MODEL_MEMORY = Gauge("locore_model_memory_bytes", "Resident memory of the model's process.")
EXTRACTION_QUEUE = Gauge(
    "locore_extraction_queue", "Requests that wait for a picture to be extracted, or have one."
)
EXTRACTION_SECONDS = Histogram(
    "locore_extraction_duration_seconds",
    "Time that a picture took, without its wait.",
    buckets=_SECONDS,
)
EXTRACTION_PICTURES = Counter(
    "locore_extraction_pictures", "Pictures that had their turn.", ["result"]
)
EXTRACTION_REJECTED = Counter(
    "locore_extraction_rejected", "Requests with pictures that found no place.", ["reason"]
)
MODEL_INFO = Gauge("locore_model_info", "Always 1.", ["checkpoint", "device", "dtype", "kernel"])

for _endpoint in ENDPOINTS:
    REQUEST_SECONDS.labels(_endpoint)
    for _status in STATUSES:
        REQUESTS.labels(_endpoint, _status)
for _metric, _values in (
    (STAGE_SECONDS, STAGES),
    (REJECTED, REJECTIONS),
    (CACHE_REQUESTS, ("hit", "miss")),
    (THUMBNAILS, ("kept", "refused")),
    (STORE_SECONDS, STORE_OPERATIONS),
    (EXTRACTION_PICTURES, EXTRACTION_RESULTS),
    (EXTRACTION_REJECTED, EXTRACTION_REJECTIONS),
):
    for _value in _values:
        _metric.labels(_value)
