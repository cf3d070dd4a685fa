"""What a run was trained on and made with, and the commands to go on with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from html import escape
from typing import Any

from launch.report.pieces import Html, definitions, duration, is_number, mapping
from launch.report.record import Metric, Record
from launch.runs.folder import is_over
from lightning_modules.metrics import specs

#: What a run is used for, by what its family can do: a title, and the command.
USES = {
    "generate": ("more images", "gesso generate {run} --num 64"),
    "stylize": ("stylised pictures", "gesso stylize PICTURE_OR_FOLDER --run {run}"),
    "translate": ("translated pictures", "gesso translate {run} PICTURE_OR_FOLDER"),
    "encode": ("latents", "gesso encode SHARDS --with {run} OUT"),
}


def trained_on(info: Mapping[str, Any]) -> Html:
    """Data sets, batch, seed and parameters, as run.json has them."""
    sets = info.get("data")
    rows = {}
    for number, described in enumerate(map(mapping, sets if isinstance(sets, list) else []), 1):
        rows["data" if number == 1 else f"data {number}"] = _set(described)
    if is_number(info.get("global_batch_size")):
        rows["batch"] = f"{info['global_batch_size']:,} images"
    if is_number(info.get("seed")):
        rows["seed"] = str(info["seed"])
    counts = {name: count for name, count in mapping(info.get("parameters")).items() if is_number(count)}
    if counts:
        listed = ", ".join(f"{escape(str(name))} {count:,}" for name, count in counts.items())
        rows["parameters"] = f"{sum(counts.values()):,} <small>({listed})</small>" if len(counts) > 1 else listed
    return definitions(rows)


def _set(described: Mapping[str, Any]) -> Html:
    """A data set in a line: its name, how many images, their size, where it lies, its fingerprint."""
    facts = [f"{described['images']:,} images"] if is_number(described.get("images")) else []
    if is_number(size := described.get("size")):
        facts.append(f"{size} px, {'grey' if described.get('channels') == 1 else 'RGB'}")
    if classes := described.get("classes"):
        facts.append(f"{classes} classes")
    beside = [str(described.get("path") or "")]
    if described.get("fingerprint"):
        beside.append(f"fingerprint {str(described['fingerprint'])[:16]}")
    line = ", ".join([str(described.get("name") or "?"), *facts])
    return f"{escape(line)} <small>{escape(' · '.join(filter(None, beside)))}</small>"


def commands(record: Record, metrics: list[Metric]) -> Html:
    """The command that made the run, and those that go on with it."""
    run = shlex.quote(str(record.path))
    rows: dict[str, Html] = {}
    if record.info.get("command"):
        rows["this run"] = _code(str(record.info["command"]))
    if record.resumable:
        finished = is_over(record.info)
        longer = f"gesso fit --resume {run}" + " --run.kimg KIMG" * finished
        rows["train longer" if finished else "resume"] = _code(longer)
        rows |= {what: _code(command) for what, command in uses(record.info, run).items()}
        rows["score it"] = _code(f"gesso evaluate {run}{_as_the_run(record, metrics)}") + _time(record)
    return definitions(rows)


def uses(info: Mapping[str, Any], run: str) -> dict[str, str]:
    """Commands that use a run, by title: those of what its family can do, as run.json tells.

    Args:
        info: run.json.
        run: the run's folder, quoted for a shell.
    """
    abilities = info.get("abilities")
    # Runs of before do not tell theirs; most of them generate.
    able = [name for name in USES if name in abilities] if isinstance(abilities, list) else ["generate"]
    return {USES[name][0]: USES[name][1].format(run=run) for name in able}


def _as_the_run(record: Record, metrics: list[Metric]) -> str:
    """The options with which ``gesso evaluate`` gives numbers comparable with the run's own."""
    if not metrics:
        return ""
    networks = {metric.network for metric in metrics if metric.network} & set(specs.EXTRACTORS)
    options = [f"--extractor {network}" for network in sorted(networks)[:1]]
    options.append("--metrics " + " ".join(dict.fromkeys(metric.spec.name for metric in metrics)))
    if metrics[0].samples is not None:
        options.append(f"--num-samples {metrics[0].samples}")
    compared = record.info.get("compared_with")
    reference = mapping(compared[0]) if isinstance(compared, list) and compared else {}
    if reference.get("split") not in (None, "train"):
        options.append(f"--against :{shlex.quote(str(reference['split']))}")
    sets = record.info.get("data")
    whole = {each.get("images") for each in map(mapping, sets if isinstance(sets, list) else [])}
    # Of another split than the training's it is not known here how many there are.
    known = whole if reference.get("split") == "train" else set()
    if reference.get("split") and is_number(reference.get("images")) and reference["images"] not in known:
        options.append(f"--reference-samples {reference['images']}")
    return "".join(f" {option}" for option in options)


def _time(record: Record) -> Html:
    seconds = record.info.get("evaluation_seconds")
    return f" <small>about {duration(seconds)}, as in training</small>" if is_number(seconds) else ""


def _code(command: str) -> Html:
    return f"<code>{escape(command)}</code>"


def config(text: str) -> Html:
    """The text of config.yaml, folded away."""
    if not text.strip():
        return ""
    marked = re.sub(r"(?m)^(\s*(?:- )?)([\w./-]+:)(?=\s|$)", r"\1<b>\2</b>", escape(text.rstrip()))
    summary = f"<summary>the resolved config.yaml, {len(text.splitlines())} lines</summary>"
    return f"<details>{summary}<pre>{marked}</pre></details>"


def made_with(info: Mapping[str, Any]) -> Html:
    """Commit, machine and versions, as run.json has them."""
    git, versions = mapping(info.get("git")), mapping(info.get("versions"))
    commit = f"{git['commit']}{', with uncommitted changes' if git.get('dirty') else ''}" if git.get("commit") else ""
    wandb = " ".join(str(info[key]) for key in ("wandb_id", "wandb_mode") if info.get(key))
    rows = {
        "commit": commit,
        "W&B run": wandb,
        "started": str(info.get("created") or "").replace("T", " "),
        "machine": ", ".join(str(info[key]) for key in ("host", "gpu", "processor") if info.get(key)),
        "cores": f"{info['cores']}, {info.get('threads', '?')} threads a rank" if info.get("cores") else "",
        "ranks": f"{info['world_size']}, {info.get('device', '')}" if info.get("world_size") else "",
        **{str(name): str(version) for name, version in versions.items()},
    }
    return definitions({what: escape(value) for what, value in rows.items() if value})
