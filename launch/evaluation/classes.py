"""Classes of a set beside those of a conditional family, which makes all of them equally often."""

from __future__ import annotations

from datamodules.shards import ShardData
from launch.evaluation.driver import stream_of
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.evaluator import Evaluator

#: Pictures of the largest class over those of the smallest, from which on a comparison with all alike is remarked on.
UNLIKE = 2
#: Classes that a line names.
NAMED = 3


def without_pictures(data: ShardData, family: ImageFamily) -> str | None:
    """A line that names the classes of which a conditional family sees no training picture; None: there are none."""
    if not family.batch_spec().num_classes:
        return None
    classes, counts = data.manifest.classes, data.manifest.class_counts("train")
    empty = [f"{label} ({classes[label]})" for label, count in enumerate(counts) if not count]
    if not empty:
        return None
    named = ", ".join(empty[:NAMED]) + (f" and {len(empty) - NAMED:,} more" if len(empty) > NAMED else "")
    kind, them = ("class", "it") if len(empty) == 1 else ("classes", "them")
    return f"no training picture is of {kind} {named}: what is made of {them} will mean nothing"


def unlike_reference(evaluator: Evaluator, data: ShardData | None, family: ImageFamily) -> str | None:
    """A remark where samples, of all classes alike, are compared with pictures whose classes are of unlike sizes."""
    number = family.batch_spec().num_classes
    if not number or data is None or evaluator.source is not None or not evaluator.references:
        return None
    reference = evaluator.references[0]
    stream = stream_of(data, reference)
    counts = stream.manifest.class_counts(reference.split or stream.held_out_split)
    if len(counts) != number or max(counts) < UNLIKE * min(counts):
        return None
    return (
        f"samples are of all {number:,} classes equally often, the reference's classes have {min(counts):,} to "
        f"{max(counts):,} pictures: figures count that difference, too"
    )
