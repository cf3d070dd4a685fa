"""What Prometheus reads of a server."""

from __future__ import annotations

from collections.abc import Callable

from gesso.common.extras import needing

with needing("serve"):
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        PlatformCollector,
        ProcessCollector,
        generate_latest,
    )

#: Media type of the page.
CONTENT_TYPE: str = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Watch:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "gesso_requests", "Requests that were answered", ("model", "verb", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "gesso_request_seconds",
            "From a request's first byte to its answer's last",
            ("model", "verb"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._sizes = Histogram(
            "gesso_batch_size", "Pictures made at once", ("model",), buckets=_SIZES, registry=self.registry
        )
        self._batches = Histogram(
            "gesso_batch_seconds", "Time of a batch", ("model",), buckets=_SECONDS, registry=self.registry
        )
        self._under_way = Gauge(
            "gesso_requests_under_way",
            "Requests that have come and are not answered",
            ("model",),
            registry=self.registry,
        )
        self._waiting = Gauge(
            "gesso_queue_length", "Requests that wait for a worker", ("model",), registry=self.registry
        )

    def follow(self, model: str, waiting: Callable[[], int], under_way: Callable[[], int]) -> None:
        """Shows a model's queue from now on."""
        self._waiting.labels(model).set_function(waiting)
        self._under_way.labels(model).set_function(under_way)

    def batch(self, model: str, size: int, seconds: float) -> None:
        """Counts a batch."""
        self._sizes.labels(model).observe(size)
        self._batches.labels(model).observe(seconds)

    def request(self, model: str, verb: str, status: int, seconds: float) -> None:
        """Counts an answer."""
        self._requests.labels(model, verb, str(status)).inc()
        self._seconds.labels(model, verb).observe(seconds)

    def page(self) -> bytes:
        """All of it in Prometheus's text format."""
        found: bytes = generate_latest(self.registry)
        return found
