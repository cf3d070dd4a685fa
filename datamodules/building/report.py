"""Reports of a build beside its shards: ``report.json`` for programs, ``report.txt`` for people."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from datamodules.building.journal import Journal
from datamodules.building.tars import LeftOut
from datamodules.manifest import Manifest
from gesso.common.files import write_whole
from gesso.common.text import printable

_SHOWN = 20  # dropped images that report.txt names for each reason; report.json names all


def write_report(manifest: Manifest, journal: Journal, remarks: list[str]) -> None:
    """Writes both reports into the manifest's folder.

    Args:
        remarks: lines about the source.
    """
    dropped = [{"name": name, "reason": reason, "detail": detail} for name, reason, detail in journal.dropped()]
    remarks = [*remarks, *journal.lost_with_duplicates()]
    if manifest.classes and (unlabelled := journal.unlabelled()):
        remarks = [*remarks, f"no label: {unlabelled:,} of {journal.kept():,} images"]
    report: dict[str, Any] = {
        "source": manifest.provenance["source"],
        "options": manifest.provenance["options"],
        "candidates": journal.kept() + len(dropped),
        "kept": journal.kept(),
        "dropped_by_reason": journal.dropped_by_reason(),
        "duplicates_kept": journal.duplicates(),
        "splits": {name: split.samples for name, split in manifest.splits.items()},
        "images_by_class": journal.labels(),
        "remarks": remarks,
        "dropped": dropped,
        "not_understood": [{"name": name, "note": note} for name, note in journal.notes()],
    }
    _write(manifest, report)


def write_index_report(
    manifest: Manifest, left_out: dict[str, list[LeftOut]], notes: dict[str, list[tuple[str, str]]], remarks: list[str]
) -> None:
    """Writes ``report.json`` and ``report.txt`` with what an index of existing tars leaves out, by tar.

    Args:
        remarks: lines about the tars.
    """
    dropped = [
        {"name": f"{printable(url)}/{entry.name}", "reason": entry.reason, "detail": entry.detail}
        for url, entries in left_out.items()
        for entry in entries
    ]
    kept = sum(split.samples for split in manifest.splits.values())
    report: dict[str, Any] = {
        "source": manifest.provenance["source"],
        "candidates": kept + len(dropped),
        "kept": kept,
        "dropped_by_reason": dict(sorted(Counter(entry["reason"] for entry in dropped).items())),
        "duplicates_kept": 0,
        "splits": {name: split.samples for name, split in manifest.splits.items()},
        "remarks": remarks,
        "dropped": dropped,
        "not_understood": [
            {"name": f"{printable(url)}/{key}", "note": note} for url, some in notes.items() for key, note in some
        ],
    }
    _write(manifest, report)


def _write(manifest: Manifest, report: dict[str, Any]) -> None:
    write_whole(manifest.root / "report.json", json.dumps(report, indent=1))
    write_whole(manifest.root / "report.txt", _for_people(report))


def _for_people(report: dict[str, Any]) -> str:
    lines = [
        f"{report['source']}: {report['candidates']:,} candidates, {report['kept']:,} kept",
        "splits: " + ", ".join(f"{name} {count:,}" for name, count in report["splits"].items()),
    ]
    if report["duplicates_kept"]:
        asked = report["options"]["keep_duplicates"]
        why = "as --keep-duplicates asks" if asked else "as the data set's authors split it"
        lines.append(f"{report['duplicates_kept']:,} exact duplicates kept, {why}")
    lines += report["remarks"]
    for reason in report["dropped_by_reason"]:
        entries = [entry for entry in report["dropped"] if entry["reason"] == reason]
        names = [entry["name"] + (f"  ({entry['detail']})" if entry["detail"] else "") for entry in entries]
        hint = "; --keep-duplicates keeps them" if reason == "duplicate" else ""
        lines += _listed(f"dropped, {reason}: {len(names):,}{hint}", names)
    notes: dict[str, list[str]] = {}
    for entry in report["not_understood"]:
        notes.setdefault(entry["note"], []).append(entry["name"])
    for note, names in sorted(notes.items()):
        lines += _listed(f"kept, but {note}: {len(names):,}", names)
    return "\n".join(printable(line) for line in lines) + "\n"


def _listed(heading: str, names: list[str]) -> list[str]:
    """A heading and the first of the names, each in one line whatever is in it."""
    lines = ["", heading, *(f"  {''.join(map(_shown, name))}" for name in names[:_SHOWN])]
    return lines + ([f"  and {len(names) - _SHOWN:,} more, in report.json"] if len(names) > _SHOWN else [])


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
