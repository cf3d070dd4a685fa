"""Which losses share a chart."""

from __future__ import annotations

from pathlib import Path

from launch.report.curves import loss_charts, metric_table
from launch.report.page import render_page
from launch.report.record import read_record
from tests.launch.report.finished import write_metrics


def test_losses_share_charts_by_what_they_measure(tmp_path: Path) -> None:
    gan = ["generator/loss", "discriminator/loss", "discriminator/real_logits", "discriminator/fake_logits"]
    gan = [f"loss/{name}" for name in [*gan, "discriminator/gradient_penalty"]] + ["val/real_logits"]
    write_metrics(tmp_path, [(1000, name, 1.0) for name in gan])
    assert [(chart.title, [line.label for line in chart.lines]) for chart in loss_charts(read_record(tmp_path))] == [
        ("loss", ["discriminator", "generator"]),
        ("logits", ["discriminator fake", "discriminator real", "held-out real"]),
        ("gradient penalty", ["discriminator"]),
    ]
    vae = ["loss/autoencoder/kl", "loss/autoencoder/loss", "val/loss", "val/kl"]
    write_metrics(tmp_path, [(1000, name, 1.0) for name in vae])
    assert [(chart.title, [line.label for line in chart.lines]) for chart in loss_charts(read_record(tmp_path))] == [
        ("loss", ["autoencoder", "held-out"]),
        ("kl", ["autoencoder", "held-out"]),
    ]


def test_of_a_number_without_a_direction_none_is_the_best(tmp_path: Path) -> None:
    write_metrics(tmp_path, [(1000 * k, "diversity/vgg16", float(k)) for k in (1, 3, 2)])
    record = read_record(tmp_path)
    (metric,) = record.metrics()
    assert metric.quantity.direction is None
    assert metric.best is None
    assert "<td>2</td><td>–</td>" in metric_table([metric])
    page = render_page(record)
    assert "best " not in page[page.index("<main>") : page.index("</main>")]
    assert "never finite" not in page
