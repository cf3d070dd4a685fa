"""The web application: models by name, the page, documentation, health and metrics."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np

from gesso.common.extras import needing
from gesso.common.text import one_line
from launch.serving.answers import TYPES, Format, Origin, answered, decoded
from launch.serving.asks import Ask, Generate, Stylize, Translate, sampling_of
from launch.serving.desk import Desk
from launch.serving.guard import Guard
from launch.serving.page import HEADERS, render
from launch.serving.watching import CONTENT_TYPE

with needing("serve"):
    import python_multipart  # noqa: F401 # FastAPI needs it for uploads
    from fastapi import FastAPI, File, Form, Request, Response, UploadFile
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse
    from fastapi_offline import FastAPIOffline
    from pydantic import BaseModel, ConfigDict, Field
    from starlette.exceptions import HTTPException

_log = logging.getLogger("gesso.serve")
#: Style pictures of a request.
MOST_STYLES = 8
#: Numbers of samples: so many pictures has a sequence.
SEEDS = 2**32
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"description": "the picture", "content": {kind: {} for kind in TYPES.values()}},
    401: {"description": "no token, or another one"},
    413: {"description": "too large a request"},
    422: {"description": "what is wrong with the request, in one line"},
    503: {"description": "too many requests under way: `Retry-After` says in how many seconds to come again"},
}


class GenerateRequest(BaseModel):
    """A sample."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, lt=SEEDS, description="number of the picture; the same one is the same picture")
    sequence: int = Field(0, ge=0, lt=2**63, description="of which sequence: `--seed` of `gesso generate`")
    label: int | None = Field(None, description="class; none: as the model chooses")
    truncation: float | None = Field(None, allow_inf_nan=False, description="1: none; less: fewer kinds")
    truncation_cutoff: int | None = Field(None, description="of the first layers alone")
    sampler: str | None = Field(None, max_length=40, description="of a model with many steps")
    steps: int | None = Field(None, ge=1, le=1000, description="from noise to picture")
    guidance: float | None = Field(None, allow_inf_nan=False, description="towards the class; 1: none")
    format: Format = "png"

    def sampling(self) -> dict[str, object]:
        """By the names that ``Abilities.sample_with`` takes."""
        return {
            "sampler": self.sampler,
            "steps": self.steps,
            "guidance": self.guidance,
            "truncation_psi": self.truncation,
            "truncation_cutoff": self.truncation_cutoff,
        }


class Routes:
    """The answers of the application.

    Args:
        desk: the models.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk, self.options = desk, desk.options

    async def models(self) -> list[dict[str, Any]]:
        """What is served, and what each can do."""
        limits = {"max_side": self.options.max_side, "max_body": self.options.max_body}
        told = [{**asdict(served.facts), **limits} for served in self.desk.models.values()]
        return [{name: value for name, value in facts.items() if name != "made_by"} for facts in told]

    async def generate(self, model: str, asked: GenerateRequest) -> Response:
        """A sample of a model that generates: the same request gives the same bytes."""
        self._known(model)
        ask = Generate(asked.seed, asked.sequence, asked.label, sampling_of(asked.sampling()))
        return await self._answer(model, ask, asked.format, asked.model_dump(exclude_none=True))

    async def stylize(
        self,
        model: str,
        content: Annotated[UploadFile, File(description="a picture")],
        style: Annotated[
            list[UploadFile] | None, File(description="pictures in the wanted style; none where it has its own")
        ] = None,
        style_index: Annotated[int | None, Form(ge=0, description="which of its own styles, from 0")] = None,
        weights: Annotated[list[float] | None, Form(description="how much of each style; none: equally much")] = None,
        alpha: Annotated[float, Form(ge=0, le=1, description="from 0 (the content) to 1")] = 1.0,
        size: Annotated[int | None, Form(ge=1, description="longer side in pixels; none: the content's")] = None,
        format: Annotated[Format, Form()] = "png",
    ) -> Response:
        """A picture in the style of others."""
        facts = self._known(model)
        # Each may be of ``max_pixels``, however small its file is.
        if style is not None and len(style) > MOST_STYLES:
            raise ValueError(f"style: {len(style)} pictures; up to {MOST_STYLES} can be mixed")
        own = len(facts.own_styles)
        if style_index is not None:
            if weights:
                raise ValueError("style_index and weights: give one of them")
            if style_index >= own:
                raise ValueError(f"style_index is {style_index}; {model} has {own or 'no'} styles of its own")
            weights = [float(number == style_index) for number in range(own)]
        sent = [await content.read(), *[await one.read() for one in style or []]]
        names = ["content", *["style"] * (len(sent) - 1)]
        pictures = [await self._decoded(one, name, 3) for one, name in zip(sent, names, strict=True)]
        ask = Stylize(pictures[0], tuple(pictures[1:]), tuple(weights) if weights else None, alpha, self._size(size))
        # "weights" says in credentials which of the network's were taken.
        settings = {"style_weights": weights, "alpha": alpha, "size": size}
        return await self._answer(model, ask, format, settings, tuple(sent))

    async def translate(
        self,
        model: str,
        picture: Annotated[UploadFile, File(description="a picture of the one domain")],
        direction: Annotated[str | None, Form(max_length=40, description="none: the main one")] = None,
        style: Annotated[UploadFile | None, File(description="a picture of the other, in whose style")] = None,
        style_seed: Annotated[int | None, Form(ge=0, lt=SEEDS, description="of a drawn style")] = None,
        size: Annotated[int | None, Form(ge=1, description="longer side in pixels; none: the picture's")] = None,
        format: Annotated[Format, Form()] = "png",
    ) -> Response:
        """A picture of one domain as one of the other."""
        channels = self._known(model).channels or 3
        sent = [await picture.read()] + ([await style.read()] if style is not None else [])
        image = await self._decoded(sent[0], "picture", channels)
        manner = await self._decoded(sent[1], "style", channels) if style is not None else None
        ask = Translate(image, direction, manner, style_seed if manner is None else None, self._size(size))
        settings = {"direction": direction, "style_seed": style_seed, "size": size}
        return await self._answer(model, ask, format, settings, tuple(sent))

    def _known(self, model: str) -> Any:
        if model not in self.desk.models:
            raise HTTPException(404, f"no model {model[:60]!r} here: there are {', '.join(self.desk.models)}")
        return self.desk.models[model].facts

    def _size(self, size: int | None) -> int | None:
        if size is not None and size > self.options.max_side:
            raise ValueError(
                f"size is {size}; this server makes pictures of up to {self.options.max_side} pixels a side"
            )
        return size

    async def _decoded(self, data: bytes, name: str, channels: int) -> np.ndarray:
        limits = {"max_pixels": self.options.max_pixels, "max_side": self.options.max_side}
        return await self.desk.aside(functools.partial(decoded, data, name, channels=channels, **limits))

    async def _answer(
        self, model: str, ask: Ask, format: Format, settings: Mapping[str, object], sent: tuple[bytes, ...] = ()
    ) -> Response:
        try:
            made = await self.desk.answer(model, ask)
        except ValueError:
            raise
        except Exception as error:
            # The log has where; the connection and the server go on.
            _log.exception("%s cannot %s", model, ask.verb)
            line = f"unexpected {type(error).__name__}: {one_line(error)[:200]}"
            raise HTTPException(500, line) from None
        origin = Origin(model, self.desk.models[model].facts.what, settings, sent)
        data = await self.desk.aside(functools.partial(answered, made.picture, format, origin, self.desk.seal))
        headers = {
            "X-Gesso-Model": model,
            "X-Gesso-Batch": str(made.batch),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return Response(data, media_type=TYPES[format], headers=headers)


def make_app(desk: Desk) -> FastAPI:
    """The application of the models of a desk."""
    app = FastAPIOffline(
        title="gesso", version="1", redoc_url=None, description="Pictures by trained models; every answer is one file."
    )
    routes, html = Routes(desk), render()
    app.get("/models", tags=["models"])(routes.models)
    for verb in ("generate", "stylize", "translate"):
        post = app.post(f"/models/{{model}}/{verb}", tags=["pictures"], response_class=Response, responses=_PICTURE)
        post(getattr(routes, verb))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(html, headers=HEADERS)

    @app.get("/health", tags=["server"])
    async def health() -> dict[str, str]:
        """Whether the server is well: no token is asked for."""
        return {"status": "ok"}

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(desk.watch.page(), media_type=CONTENT_TYPE)

    app.add_exception_handler(ValueError, _unprocessable)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(HTTPException, _refused)
    guard: list[Guard] = []

    def guarded(inner: Any) -> Guard:
        guard.append(Guard(inner, desk.options, desk.models, desk.pace, desk.watch.request))
        return guard[0]

    app.add_middleware(guarded)

    def under_way(name: str) -> int:
        return guard[0].under_way[name] if guard else 0

    for name in desk.models:
        desk.watch.follow(name, functools.partial(desk.waiting, name), functools.partial(under_way, name))
    return app


async def _unprocessable(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": _line(error)}, 422)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # FastAPI's own of a body that cannot be parsed.
    return JSONResponse({"detail": error.detail}, 422 if error.status_code == 400 else error.status_code, error.headers)


def _line(error: Exception) -> str:
    """What is wrong with a request, in one line that names the field."""
    if not isinstance(error, RequestValidationError):
        return one_line(error)
    first = error.errors()[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return "the request's body is no JSON"
    return f"{'.'.join(where) or 'the request'}: {first['msg'][:1].lower()}{first['msg'][1:]}"
