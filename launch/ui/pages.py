"""The pages of ``gesso ui``: all runs, one run, several runs beside each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from launch.report.charts import label
from launch.report.document import document
from launch.report.page import render_body
from launch.report.pieces import Html, duration, section
from launch.report.record import read_record
from launch.runs.folder import RunFolder
from launch.ui.comparison import MOST, comparison
from launch.ui.runs import Row, checkpoints_of
from launch.ui.samples import MOST as MOST_SAMPLES

HERE = Path(__file__).parent
#: Of every page: it shows pictures and runs the scripts that it holds, and talks to its own server alone.
POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'"
)


def page(title: str, body: Html) -> Html:
    """A whole page that keeps itself up to date."""
    styles, scripts = ((HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return document(title, body, policy=POLICY, styles=styles, scripts=scripts)


def address(what: str, key: str) -> str:
    """The address of something of a run."""
    return f"/{what}?run={quote(key, safe='')}"


def index_body(rows: Sequence[Row], *, folders: Sequence[Path], actions: bool) -> Html:
    """The list of all runs."""
    where = " · ".join(escape(str(folder)) for folder in folders)
    count = f"{len(rows)} run{'s' * (len(rows) != 1)}"
    head = "".join(f"<th>{title}</th>" for title in ("", "", "run", "state", "trained", "score", "speed", "changed"))
    lines = "\n".join(_line(row) for row in rows)
    listed = (
        f"<form action='/compare'><div class='scroll'><table class='runs'><thead><tr>{head}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
        f"<p><button>compare</button> <small>up to {MOST} that are marked</small></p></form>"
        if rows
        else "<p>No run yet: <code>gesso fit --config mnist-dcgan</code> makes one.</p>"
    )
    queue = section("Queue a training", _queue_form()) if actions else ""
    return (
        f"<header><p class='brand'>gesso</p><h1>{count}</h1><p class='facts'><span>{where}</span></p></header>"
        f"{listed}{queue}"
    )


def run_body(key: str, run: RunFolder, *, actions: bool) -> Html:
    """A run's report, with samples of any checkpoint and, where they are allowed, what can be done with it."""
    record = read_record(run.path)
    abilities = record.info.get("abilities")
    makes = not isinstance(abilities, list) or "generate" in abilities
    links = ["<a href='/'>all runs</a>"] + ["<a href='#sample'>sample</a>"] * makes
    return "\n".join(
        [
            f"<p class='brand'>{' · '.join(links)}</p>",
            render_body(record),
            f"<div id='sample'>{section('Sample', _sample_form(key, checkpoints_of(run)))}</div>" if makes else "",
            section("Queue", _actions_form(key)) if actions else "",
        ]
    )


def comparison_body(runs: Sequence[RunFolder]) -> Html:
    """Several runs beside each other."""
    return comparison([read_record(run.path) for run in runs])


def message_body(line: str) -> Html:
    """A page of one line."""
    return f"<header><p class='brand'><a href='/'>gesso</a></p><p class='error'>{escape(line)}</p></header>"


# ---- pieces ---------------------------------------------------------------------------------------------------------


def _line(row: Row) -> Html:
    mark = f"<input type='checkbox' name='run' value='{escape(row.key, quote=True)}' aria-label='compare'>"
    picture = f"<img src='{address('thumbnail', row.key)}' alt='' loading='lazy'>" if row.picture else ""
    place = f"<br><small>{escape(row.key)}</small>" if row.key != row.name else ""
    name = f"<a href='{address('run', row.key)}'>{escape(row.name)}</a>{place}"
    state = f"<span class='state {escape(row.state)}'>{escape(row.state)}</span><br><small>{escape(row.family)}</small>"
    speed = f"{label(row.images_per_second)} <small>images/s</small>" if row.images_per_second else ""
    ago = f"<small>{duration(max(0.0, time.time() - row.changed))} ago</small>" if row.changed else ""
    cells = (mark, picture, name, state, _trained(row), escape(row.score), speed, ago)
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _trained(row: Row) -> Html:
    if not row.total_kimg:
        return f"{label(row.kimg)} <small>kimg</small>" if row.kimg else ""
    share = min(row.kimg / row.total_kimg, 1.0)
    return (
        f"<progress value='{share:.4f}'></progress><br><small>{label(row.kimg)} of {label(row.total_kimg)} kimg</small>"
    )


def _sample_form(key: str, checkpoints: Sequence[Path]) -> Html:
    if not checkpoints:
        return "<p><small>There is no checkpoint yet.</small></p>"
    options = "".join(f"<option value='{path.name}'>{int(path.name) / 1000:g} kimg</option>" for path in checkpoints)
    return (
        f"<form class='sample' data-action='{address('samples.png', key)}'>"
        f"<label>checkpoint <select name='checkpoint'>{options}</select></label>"
        f"<label>pictures <input name='num' type='number' min='1' max='{MOST_SAMPLES}' value='16'></label>"
        "<label>seed <input name='seed' type='number' min='0' value='0'></label>"
        "<label>class <input name='label' type='number' min='0' placeholder='any'></label>"
        "<label><input name='raw' type='checkbox' value='true'> raw weights</label>"
        "<button>sample</button><p class='error' hidden></p><img alt='samples' hidden></form>"
    )


def _actions_form(key: str) -> Html:
    return (
        f"<form class='action' data-action='{address('resume', key)}'><button>resume</button> "
        "<small>gesso slurm resume</small><pre hidden></pre></form>"
        f"<form class='action' data-action='{address('cancel', key)}'><button>cancel</button> "
        "<small>gesso slurm cancel, which saves a checkpoint first</small><pre hidden></pre></form>"
    )


def _queue_form() -> Html:
    example = "--gpus-per-node 1 --time 4:00:00 -- fit --config mnist-dcgan --run.kimg 200"
    return (
        "<form class='action' data-action='/queue'><label class='wide'>gesso slurm submit "
        f"<input name='words' placeholder='{escape(example, quote=True)}' required></label> <button>queue</button>"
        "<pre hidden></pre></form>"
    )
