"""What W&B's offline files hold, read back from the records themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def wandb_runs(run: Path) -> list[tuple[str, int]]:
    """(run id, number of history rows) of each offline file below ``run``, the oldest first."""
    found = []
    for file in sorted(run.rglob("*.wandb")):
        identity, rows = "", 0
        for record in records(file):
            identity = record.run.run_id or identity
            rows += record.WhichOneof("record_type") == "history"
        found.append((identity, rows))
    return found


def wandb_groups(run: Path) -> set[str]:
    """The groups of all offline runs below ``run``."""
    return {
        record.run.run_group
        for file in run.rglob("*.wandb")
        for record in records(file)
        if record.WhichOneof("record_type") == "run"
    }


def records(file: Path) -> Iterator[Any]:
    """W&B's records in an offline file."""
    from wandb.proto import wandb_internal_pb2

    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(data)
        yield record


def log_records(data: bytes, block: int = 32768) -> Iterator[bytes]:
    """Records of a LevelDB log (blocks of 32 KiB; crc 4 bytes, length 2, type 1, data) behind W&B's own 7 bytes."""
    position, record = 7, b""
    while position + 7 <= len(data):
        if block - position % block < 7:
            position += block - position % block
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
