"""The service as a Ray Serve deployment: replicas that scale with the load and share one Redis.

    serve run deploy.ray.serve:app redis_url=redis://HOST:6379/0
    serve run deploy/ray/serve.yaml

Arguments are settings by their names in `service.settings`; others come from LOCORE_* variables.
See docs/ray.md.
"""

from __future__ import annotations

from typing import Any

import click
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from ray import serve
from ray.serve import Application
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.ray.replica_metrics import merged
from locore_client.contract import REQUEST_ID_HEADER
from service.app import create_app
from service.cli.serve import read_settings
from service.inference.model_process import ModelProcess
from service.settings import EMBEDDED, Settings
from service.watch.logs import configure_logging

_METRICS_SECONDS = 5.0
_TAKING_DOWN_SECONDS = 10.0


class UnfitSettingsError(click.ClickException):
    """One line, exit code 2."""

    exit_code = 2


class Locore:
    """One replica: the application of `locore serve` with its own model, worker and queue."""

    def __init__(self, settings: Settings) -> None:
        """Raises CheckpointError and UnfitModelError: the replica then does not start."""
        configure_logging(settings.log_format)
        model = ModelProcess(settings.checkpoint, settings.device, settings.dtype)
        self._app = create_app(settings, model)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What Serve runs, its lifespan and all: the start, the warm-up, and taking down."""
        return UnderServe(self._app)

    async def check_health(self) -> None:
        """Serve puts another replica in the place of one that raises. That mends a worker that is
        stuck or dead, and not a Redis that is away, which is left to /health/ready."""
        refusal = self._app.state.service.refusal()
        if refusal is not None:
            raise RuntimeError(str(refusal[1]))

    async def replica_metrics(self) -> tuple[str, str]:
        """(name of this replica, its metrics as Prometheus text)."""
        return serve.get_replica_context().replica_id.unique_id, generate_latest().decode()


class UnderServe:
    """What differs where Serve's proxy stands in front.

    A request to /metrics reaches any one replica: it answers for all of them. And X-Request-ID is
    the proxy's to set: an answer would have it twice.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_request_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                name = REQUEST_ID_HEADER.lower().encode()
                message["headers"] = [h for h in message["headers"] if h[0].lower() != name]
            await send(message)

        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("GET", "/metrics"):
            await (await _all_metrics())(scope, receive, send)
        else:
            await self._app(scope, receive, without_request_id)


async def _all_metrics() -> Response:
    """Of all replicas; one that is just going, and does not answer, is left out."""
    context = serve.get_replica_context()
    handle = serve.get_deployment_handle(context.deployment, context.app_name)
    answers = await handle.broadcast("replica_metrics").results_async(
        timeout_s=_METRICS_SECONDS, return_exceptions=True
    )
    texts = dict(answer for answer in answers if not isinstance(answer, BaseException))
    return Response(merged(texts), media_type=CONTENT_TYPE_LATEST)


def app(arguments: dict[str, Any]) -> Application:
    """What `serve run` builds. Raises UnfitSettingsError."""
    try:
        settings = read_settings(arguments)
    except click.UsageError as error:
        raise UnfitSettingsError(error.message) from None
    if settings.redis_url == EMBEDDED:
        raise UnfitSettingsError(
            "LOCORE_REDIS_URL: replicas share a Redis, redis://HOST:PORT/0; `embedded` would give "
            "each one a gallery of its own"
        )
    deployment = serve.deployment(
        name="locore",
        graceful_shutdown_timeout_s=settings.drain_seconds + _TAKING_DOWN_SECONDS,
        # A forward pass holds some 4 lists of 100 images (20,480 tokens, 50 an image). While one
        # is computed the next one gathers: with 8 requests a replica is never without work, and a
        # request waits for one pass. More than that is what another replica is for.
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 4,
            "target_ongoing_requests": 8,
            "look_back_period_s": 15,
            "upscale_delay_s": 15,
            "downscale_delay_s": 300,
        },
        # Above what the service's own queue admits (1,000,000 tokens are 198 such lists): it is
        # the queue that refuses, by 429 and Retry-After, and few wait unseen in Serve's proxy.
        max_ongoing_requests=256,
        max_queued_requests=256,
    )(serve.ingress()(Locore))
    return deployment.bind(settings)
