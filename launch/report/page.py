"""The report page of a run, as one self-contained HTML file."""

from __future__ import annotations

from html import escape
from pathlib import Path

from launch.report import origins
from launch.report.charts import label
from launch.report.curves import axis_of, draw, evaluation_table, loss_charts, metric_charts, metric_table, other_charts
from launch.report.document import document, write_page
from launch.report.embed import embed
from launch.report.pieces import Html, duration, grid_of, image, is_number, section
from launch.report.record import Metric, Record, evenly, read_record

#: Bytes that pictures may take: together under 7 MB, however large the grids and however many.
FRAMES = 24
FRAME_BYTES = 160_000
FINAL_BYTES = 1_000_000
OTHERS_BYTES = 1_800_000


#: What previews of these names show.
CAPTIONS = {
    "real": "pictures of the data set, not trained on",
    "nearest": "a few samples; below each, the training pictures nearest to it, pixel by pixel,",
}


def write_report(run_dir: Path) -> Path:
    """Writes ``report.html`` into a run folder from its files; any of them may be missing.

    Raises:
        FileNotFoundError: this is no run folder.
        ValueError: a file in it is damaged.
        OSError: the page cannot be written; an earlier one stays.
    """
    return write_page(run_dir / "report.html", render_page(read_record(run_dir)))


def render_page(record: Record) -> Html:
    """The whole page."""
    return document(record.name, render_body(record))


def render_body(record: Record) -> Html:
    """What stands in the page. Names, configs and errors are data: everything is escaped."""
    metrics, kimg = record.metrics(), axis_of(record)
    return "\n".join(
        [
            _header(record),
            _tiles(record, metrics),
            section("Samples", _pictures(record, metrics)),
            section("Metrics", draw(metric_charts(metrics), kimg) + metric_table(metrics)),
            section("Evaluations", evaluation_table(record)),
            section("Losses", draw(loss_charts(record), kimg)),
            section("Other curves", draw(other_charts(record), kimg)),
            section("Trained on", origins.trained_on(record.info)),
            section("Go on", origins.commands(record, metrics)),
            section("Config", origins.config(record.config)),
            section("Made with", origins.made_with(record.info)),
        ]
    )


# ---- the top of the page --------------------------------------------------------------------------------------------


def _header(record: Record) -> Html:
    info, state = record.info, record.state
    at = f" at {label(info['kimg'])} kimg" if state != "finished" and is_number(info.get("kimg")) else ""
    facts = [info.get("family"), (info.get("created") or "").replace("T", " ")[:16], info.get("host")]
    error = f'<p class="error">{escape(str(info["error"]))}</p>' if info.get("error") else ""
    return (
        f"<header><p class='brand'>gesso</p><h1>{escape(record.name)}</h1>"
        f'<p class="facts"><span class="state {escape(state)}">{escape(state + at)}</span>'
        + "".join(f"<span>{escape(str(fact))}</span>" for fact in facts if fact)
        + f"</p>{error}</header>"
    )


def _tiles(record: Record, metrics: list[Metric]) -> Html:
    """The most important figures, as tiles."""
    info = record.info
    tiles = []
    for metric in metrics[:1]:
        none = "never finite" if metric.quantity.direction else ""
        best = f"best {label(metric.best[1])} at {label(metric.best[0])} kimg" if metric.best else none
        tiles.append((f"{metric.name} ({metric.qualifier})", label(metric.points[-1][1]), "", best))
    if is_number(info.get("kimg")):
        tiles.append(("trained on", label(info["kimg"]), "kimg", f"{info['kimg'] * 1000:,.0f} images"))
    if is_number(info.get("images_per_second")):
        device, ranks = info.get("device"), info.get("world_size") or 1
        where = f"on {ranks} ranks, {device}" if ranks != 1 else f"on {device}" if device else ""
        tiles.append(("speed", label(info["images_per_second"]), "images/s", where))
    if is_number(info.get("seconds")):
        restarts = info.get("restarts") or 0
        again = f"resumed {restarts} time{'s' if restarts != 1 else ''}" if restarts else "in one go"
        tiles.append(("training time", duration(info["seconds"]), "", again))
    return grid_of(
        "tiles",
        [
            f"<div><small>{escape(what)}</small><strong>{escape(figure)} <small>{unit}</small></strong>"
            f"<small>{escape(beside)}</small></div>"
            for what, figure, unit, beside in tiles
        ],
    )


# ---- pictures -------------------------------------------------------------------------------------------------------


def _pictures(record: Record, metrics: list[Metric]) -> Html:
    """The samples over time, and the last one of each other preview."""
    others = [name for name in record.pictures if name != "samples"]
    film = _film(record.pictures.get("samples", []), metrics[0] if metrics else None)
    stills = []
    for name in others:
        kimg, file = record.pictures[name][-1]
        if picture := embed(file, OTHERS_BYTES // len(others)):
            when = f"at {label(kimg)} kimg" if kimg else ""
            caption = f"<b>{escape(name.replace('_', ' '))}</b> <small>{CAPTIONS.get(name, '')} {when}</small>"
            stills.append(f"<figure><figcaption>{caption}</figcaption>{image(picture, name)}</figure>")
    return grid_of("pictures", [part for part in (film, grid_of("stills", stills)) if part])


def _film(files: list[tuple[float, Path]], metric: Metric | None) -> Html:
    """Grids over time, with a slider; the last one shows until the slider is moved."""
    frames = []
    for kimg, file in evenly(files, FRAMES):
        picture = embed(file, FINAL_BYTES if file == files[-1][1] else FRAME_BYTES)
        if picture is None:
            continue
        caption = f"{label(kimg)} kimg"
        if metric and (measured := metric.before(kimg)):
            earlier = f" at {label(measured[0])} kimg" if measured[0] < kimg else ""
            caption += f" · {metric.name} {label(measured[1])}{earlier}"
        frames.append((picture, caption))
    if not frames:
        return ""
    last = len(frames) - 1
    images = "".join(image(picture, caption, hidden=k < last) for k, (picture, caption) in enumerate(frames))
    controls = (
        f'<div class="controls" hidden><button type="button" aria-label="play">▶</button>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="which grid"></div>'
        if last
        else ""
    )
    caption = f"<b>samples</b> <output>{escape(frames[-1][1])}</output>"
    return f'<figure class="film"><figcaption>{caption}</figcaption>{images}{controls}</figure>'
