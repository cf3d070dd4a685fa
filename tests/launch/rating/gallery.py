"""What three photographs and two methods are called in tests of `gesso rate`, and what reads its files."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from gesso.cli import rate
from launch.rating.files import Key

METHODS = ("embossed_by_us", "posterised_by_them")
STEMS = ("dawn_over_sea", "noon_on_moor", "rain_in_town")
MAKE = ("make", "photos", *(f"{method}={method}" for method in METHODS), "--out", "rate.html")


def gesso(*arguments: str) -> int:
    top = argparse.ArgumentParser()
    rate.add_parser(top.add_subparsers())
    parsed = top.parse_args(["rate", *arguments])
    return parsed.run(parsed)


def data_of(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', Path(page).read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def scores_file(name: str, key: Key, scores: dict[str, int], **more: object) -> Path:
    entries = [{"id": item, "score": score, "seconds": 2.5} for item, score in scores.items()]
    Path(name).write_text(json.dumps({"page": key.page, "rater": name, "scores": entries, **more}))
    return Path(name)
