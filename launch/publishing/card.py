"""The model card of a run: what it is, what it was trained on, what was measured and how; and what nobody has checked.

Its head is what Hugging Face reads (https://huggingface.co/docs/hub/model-cards). Of the machine it was trained on it
says the processor, and no paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

import yaml

from launch.report.pieces import duration, is_number, mapping
from launch.report.record import Metric, Record, join_words

#: Hugging Face's name of what a family does, by the ability.
TASKS = {
    "generate": "unconditional-image-generation",
    "stylize": "image-to-image",
    "translate": "image-to-image",
}
#: What is typed with the folder at hand, by the ability.
USES = {
    "generate": "gesso generate model.safetensors --num 64",
    "stylize": "gesso stylize PICTURE --run model.safetensors",
    "translate": "gesso translate model.safetensors PICTURE",
}
#: A metric, and how it was measured.
Score: TypeAlias = tuple[Metric, str]
#: Where nothing is said of a licence.
NOT_STATED = "not stated"


def card(
    record: Record,
    *,
    weights: str,
    checksum: str,
    licence: str = NOT_STATED,
    styles: Sequence[Mapping[str, str]] = (),
    picture: str | None = None,
    autoencoder: str | None = None,
    measured: bool = True,
) -> str:
    """The card as Markdown with a YAML head.

    Args:
        record: the run.
        weights: ``averaged`` or ``raw``.
        checksum: SHA-256 of the weights' file.
        licence: of the weights, as an SPDX identifier.
        styles: name and, where it is known, licence of each style picture.
        picture: a file beside the card that shows what the model makes; None: there is none.
        autoencoder: the file beside the card that decodes what the model makes; None: it makes pictures.
        measured: whether the run's scores are of these weights; else they are left out.
    """
    scores = _scores(record) if measured else []
    shown = "" if picture is None else f"![what it makes]({picture})\n"
    parts = [
        f"---\n{yaml.safe_dump(_head(record, licence, scores), sort_keys=False, allow_unicode=True)}---\n",
        f"# {record.name}\n",
        f"{_what(record, weights)}\n",
        shown,
        _uses(record),
        "" if autoencoder is None else f"It makes latents; `{autoencoder}` decodes them, and has to lie beside it.\n",
        _trained(record),
        _measured(scores, known=measured),
        _data(record, styles),
        "## Not checked\n\nWhether samples are copies of training pictures (`gesso memorised RUN` compares), whether "
        "groups are shown as often as in the data (`gesso bias RUN`), and who has rights in the training pictures.\n",
        f"SHA-256 of `model.safetensors`: `{checksum}`\n",
    ]
    return "\n".join(filter(None, parts))


def _abilities(record: Record) -> list[str]:
    known = record.info.get("abilities")
    return [str(name) for name in known] if isinstance(known, list) else []


def _head(record: Record, licence: str, scores: Sequence[Score]) -> dict[str, Any]:
    task = next((task for ability, task in TASKS.items() if ability in _abilities(record)), None)
    head: dict[str, Any] = {"library_name": "gesso"}
    if licence != NOT_STATED:
        head["license"] = licence.lower()
    if task is not None:
        head["pipeline_tag"] = task
    head["tags"] = ["gesso", str(record.info.get("family") or "unknown")]
    results = [
        {"type": metric.quantity.name, "name": f"{metric.name} ({how})", "value": metric.points[-1][1]}
        for metric, how in scores
    ]
    sets = _sets(record)
    if results and task is not None and sets:
        name = str(sets[0].get("name"))
        entry = {"task": {"type": task}, "dataset": {"name": name, "type": name}, "metrics": results}
        head["model-index"] = [{"name": record.name, "results": [entry]}]
    return head


def _what(record: Record, weights: str) -> str:
    kimg = record.info.get("kimg")
    seen = f" on {kimg:,.4g} thousand images" if is_number(kimg) else ""
    family = record.info.get("family") or "unknown"
    return f"The {weights} weights of a `{family}`, trained with gesso{seen}."


def _uses(record: Record) -> str:
    lines = [command for ability, command in USES.items() if ability in _abilities(record)]
    return "\n".join(["## Use\n", "```", "pip install gesso", *lines, "```\n"]) if lines else ""


def _trained(record: Record) -> str:
    info = record.info
    counts = {name: count for name, count in mapping(info.get("parameters")).items() if is_number(count)}
    versions = mapping(info.get("versions"))
    rows = {
        "images seen": f"{info['images_seen']:,}" if is_number(info.get("images_seen")) else None,
        "batch": f"{info['global_batch_size']:,} images" if is_number(info.get("global_batch_size")) else None,
        "parameters": ", ".join(f"{name} {count:,}" for name, count in counts.items()) or None,
        "seed": str(info["seed"]) if is_number(info.get("seed")) else None,
        "time": duration(info["seconds"]) if is_number(info.get("seconds")) else None,
        "hardware": info.get("gpu") or info.get("processor"),
        "ranks": str(info["world_size"]) if is_number(info.get("world_size")) else None,
        "made with": ", ".join(f"{name} {version}" for name, version in versions.items()) or None,
        "run": str(info.get("identity") or "") or None,
    }
    return _table("## Training", ("", ""), [(name, value) for name, value in rows.items() if value])


def _scores(record: Record) -> list[Score]:
    kimg, found = record.info.get("kimg"), []
    for metric in record.metrics():
        if metric.points:
            # Weights of the last checkpoint may have been trained on since the last evaluation.
            earlier = is_number(kimg) and metric.points[-1][0] != kimg
            when = f"at {metric.points[-1][0]:,.4g} kimg" if earlier else ""
            found.append((metric, join_words(metric.qualifier, when)))
    return found


def _measured(scores: Sequence[Score], *, known: bool) -> str:
    rows = [(metric.name, f"{metric.points[-1][1]:.4g}", how) for metric, how in scores]
    if not known:
        return "## Measured\n\nNothing of these weights: the run's scores are of the averaged ones.\n"
    if not rows:
        return "## Measured\n\nNothing.\n"
    return _table("## Measured", ("metric", "value", "how"), rows)


def _sets(record: Record) -> list[dict[str, Any]]:
    known = record.info.get("data")
    return [mapping(each) for each in known] if isinstance(known, list) else []


def _data(record: Record, styles: Sequence[Mapping[str, str]]) -> str:
    rows = []
    for each in _sets(record):
        count, side = each.get("images"), each.get("size")
        what, unit = ("latents of pictures", "places a side") if each.get("latents") else ("pictures", "px")
        pictures = f"{count:,} {what}" if is_number(count) else ""
        size = f"{side} {unit}, {each.get('channels')} channels" if is_number(side) else ""
        classes = f"{each['classes']} classes" if is_number(each.get("classes")) and each["classes"] else ""
        described = ", ".join(filter(None, [pictures, size, classes]))
        rows.append((str(each.get("name")), described, f"`{str(each.get('fingerprint', ''))[:16]}`"))
    rows += [(style["name"], "a style picture", style.get("licence", f"licence {NOT_STATED}")) for style in styles]
    return _table("## Data", ("name", "what", "fingerprint or licence"), rows) if rows else ""


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [title, "", f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join([*lines, ""])


def _cell(value: object) -> str:
    return escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")
