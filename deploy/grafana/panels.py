"""What the dashboard shows: a row for each question that is asked of the service, a panel for each
answer. Queries name the job and sum over `$instance`, so that one page serves one replica and many.
"""

from __future__ import annotations

from parts import WORK, Panel, gauge, mean, quantile, rate

FAILED = rate("locore_requests_total", f'{WORK}, status=~"5.."')
HITS = rate("locore_cache_requests_total", 'result="hit"')
ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel(
            "Replicas ready",
            "Taking requests, of those that Prometheus scrapes.",
            "short",
            (
                ("ready", f"sum({gauge('locore_ready')})"),
                ("scraped", f"count({gauge('up')})"),
            ),
            6,
            "stat",
        ),
        Panel(
            "Store",
            "1 while every replica's last operation on Redis succeeded.",
            "short",
            (("up", f"min({gauge('locore_store_up')})"),),
            6,
            "stat",
        ),
        Panel(
            "Re-rankings a second",
            "Answered, whatever the status.",
            "reqps",
            (("", rate("locore_requests_total", 'endpoint="rerank"')),),
            6,
            "stat",
        ),
        Panel(
            "Re-ranking, p99",
            "LocoreSlow fires above a second.",
            "s",
            (("", quantile(0.99, "locore_request_duration_seconds", 'endpoint="rerank"')),),
            6,
            "stat",
            limit=1,
        ),
    ),
    "Traffic": (
        Panel(
            "Requests by endpoint",
            "",
            "reqps",
            (("{{endpoint}}", rate("locore_requests_total", "", "endpoint")),),
        ),
        Panel(
            "Requests in flight",
            "Being answered at this moment, by replica.",
            "short",
            (("{{instance}}", gauge("locore_inflight_requests")),),
        ),
        Panel(
            "Images registered a second",
            "",
            "short",
            (("images", rate("locore_gallery_images_registered_total")),),
        ),
    ),
    "Latency": (
        Panel(
            "Re-ranking",
            "As the service answers, including errors.",
            "s",
            tuple(
                (
                    f"p{share * 100:g}",
                    quantile(share, "locore_request_duration_seconds", 'endpoint="rerank"'),
                )
                for share in (0.5, 0.9, 0.99)
            ),
            limit=1,
        ),
        Panel(
            "Mean time by stage",
            "Where a re-ranking's time goes.",
            "s",
            (
                (
                    "{{stage}}",
                    mean("locore_stage_duration_seconds", 'stage!="total"', "stage"),
                ),
            ),
            stacked=True,
        ),
        Panel(
            "p99 by stage",
            "",
            "s",
            (("{{stage}}", quantile(0.99, "locore_stage_duration_seconds", "", "stage")),),
        ),
    ),
    "Batching": (
        Panel(
            "Queue, share of its bound",
            "Tokens admitted and not yet scored; at 1 requests are refused.",
            "percentunit",
            (
                (
                    "{{instance}}",
                    f"{gauge('locore_queue_tokens')} / {gauge('locore_queue_tokens_limit')}",
                ),
            ),
            6,
            limit=0.8,
        ),
        Panel(
            "Windows of a forward pass",
            "",
            "short",
            (
                ("mean", mean("locore_batch_windows")),
                ("p90", quantile(0.9, "locore_batch_windows")),
            ),
            6,
        ),
        Panel(
            "Tokens a second",
            "Computed by all forward passes, with padding.",
            "short",
            (("tokens", rate("locore_batch_tokens_sum")),),
            6,
        ),
        Panel(
            "Padding",
            "Mean share of a forward pass that is padding.",
            "percentunit",
            (("padding", mean("locore_batch_padding_ratio")),),
            6,
            top=1,
        ),
    ),
    "Cache": (
        Panel(
            "Images found in the cache",
            "Of those looked up.",
            "percentunit",
            (
                (
                    "hits",
                    f"{HITS} / {rate('locore_cache_requests_total')}",
                ),
            ),
            12,
            top=1,
        ),
        Panel(
            "Size of the cache",
            "Bounded by LOCORE_CACHE_BYTES.",
            "bytes",
            (("{{instance}}", gauge("locore_cache_bytes")),),
            12,
        ),
    ),
    "Store": (
        Panel(
            "Operations a second",
            "",
            "ops",
            (("{{operation}}", rate("locore_store_duration_seconds_count", "", "operation")),),
        ),
        Panel(
            "p99 by operation",
            "",
            "s",
            (
                (
                    "{{operation}}",
                    quantile(0.99, "locore_store_duration_seconds", "", "operation"),
                ),
            ),
        ),
        Panel(
            "Answers",
            "0 where a replica's last operation on Redis failed.",
            "short",
            (("{{instance}}", gauge("locore_store_up")),),
            top=1,
        ),
    ),
    "Pictures": (
        Panel(
            "Pictures a second",
            "Refused: no pictures that can be described. Failed: the extractor.",
            "short",
            (
                ("{{result}}", rate("locore_extraction_pictures_total", "", "result")),
                ("not taken: {{reason}}", rate("locore_extraction_rejected_total", "", "reason")),
            ),
        ),
        Panel(
            "Extraction of a picture, p99",
            "Without its wait.",
            "s",
            (("", quantile(0.99, "locore_extraction_duration_seconds")),),
        ),
        Panel(
            "Requests with pictures that wait",
            "",
            "short",
            (("{{instance}}", gauge("locore_extraction_queue")),),
        ),
    ),
    "Thumbnails": (
        Panel(
            "Thumbnails a second",
            "Refused: there is no more room for them (LOCORE_THUMBNAIL_BYTES).",
            "short",
            (("{{result}}", rate("locore_thumbnails_total", "", "result")),),
            12,
        ),
        Panel(
            "Their bytes in the store",
            "The last estimate of each replica.",
            "bytes",
            (("{{instance}}", gauge("locore_thumbnail_bytes")),),
            12,
        ),
    ),
    "Errors": (
        Panel(
            "Share of requests that fail",
            "5xx of /rerank and /gallery. LocoreErrors fires above 1 %.",
            "percentunit",
            (("5xx", f"{FAILED} / {rate('locore_requests_total', WORK)}"),),
            limit=0.01,
        ),
        Panel(
            "Failures by status",
            "499: the client had left. 503: not ready or no store. 504: the deadline ran out.",
            "reqps",
            (
                (
                    "{{status}}",
                    rate("locore_requests_total", f'{WORK}, status=~"4..|5.."', "status"),
                ),
            ),
        ),
        Panel(
            "Refused before any work",
            "",
            "reqps",
            (("{{reason}}", rate("locore_rejected_total", "", "reason")),),
        ),
    ),
    "Memory and process": (
        Panel(
            "Memory, share of the limit",
            "The container's limit if there is one, else the machine's.",
            "percentunit",
            (
                (
                    "{{instance}}",
                    f"({gauge('process_resident_memory_bytes')}"
                    f" + {gauge('locore_model_memory_bytes')})"
                    f" / {gauge('locore_memory_limit_bytes')}",
                ),
            ),
            limit=0.9,
            top=1,
        ),
        Panel(
            "Memory",
            "",
            "bytes",
            (
                ("{{instance}}", gauge("process_resident_memory_bytes")),
                ("{{instance}}, model", gauge("locore_model_memory_bytes")),
            ),
        ),
        Panel(
            "Processor",
            "Cores that the service keeps busy, without the process of its model.",
            "short",
            (("{{instance}}", rate("process_cpu_seconds_total", "", "instance")),),
        ),
    ),
    "What runs": (
        Panel(
            "Models",
            "The checkpoint, device and kernel of every replica.",
            "short",
            (("", gauge("locore_model_info")),),
            24,
            "table",
        ),
    ),
}
