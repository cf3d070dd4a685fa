"""What a build did, beside its shards: ``report.json`` for programs, ``report.txt`` for people."""

from __future__ import annotations

import json
from typing import Any

from datamodules.building.journal import Journal
from datamodules.manifest import Manifest

_SHOWN = 20  # dropped images that report.txt names for each reason; report.json names all


def write_report(manifest: Manifest, journal: Journal) -> None:
    """Writes both reports into the manifest's folder."""
    dropped = [{"name": name, "reason": reason, "detail": detail} for name, reason, detail in journal.dropped()]
    report: dict[str, Any] = {
        "source": manifest.provenance["source"],
        "options": manifest.provenance["options"],
        "candidates": journal.kept() + len(dropped),
        "kept": journal.kept(),
        "dropped_by_reason": journal.dropped_by_reason(),
        "duplicates_kept": journal.duplicates(),
        "splits": {name: split.samples for name, split in manifest.splits.items()},
        "images_by_class": journal.labels(),
        "dropped": dropped,
    }
    (manifest.root / "report.json").write_text(json.dumps(report, indent=1))
    (manifest.root / "report.txt").write_text(_for_people(report))


def _for_people(report: dict[str, Any]) -> str:
    lines = [
        f"{report['source']}: {report['candidates']:,} candidates, {report['kept']:,} kept",
        "splits: " + ", ".join(f"{name} {count:,}" for name, count in report["splits"].items()),
    ]
    if report["duplicates_kept"]:
        lines.append(f"{report['duplicates_kept']:,} exact duplicates kept, as the data set's authors split it")
    for reason, count in report["dropped_by_reason"].items():
        lines.append(f"\ndropped, {reason}: {count:,}")
        names = [entry for entry in report["dropped"] if entry["reason"] == reason]
        lines += [
            f"  {entry['name']}" + (f"  ({entry['detail']})" if entry["detail"] else "") for entry in names[:_SHOWN]
        ]
        if len(names) > _SHOWN:
            lines.append(f"  and {len(names) - _SHOWN:,} more, in report.json")
    return "\n".join(lines) + "\n"
