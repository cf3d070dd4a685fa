"""Options of a training of two steps."""

from __future__ import annotations

#: Of ``gesso fit --config mnist-dcgan``: 32 images, one evaluation, one preview.
TINY = [
    *("--data.global_batch_size=16", "--run.kimg=0.032", "--run.wandb=disabled", "--trainer.accelerator=cpu"),
    *("--trainer.precision=32-true", "--evaluation.metrics=[fid]", "--evaluation.num_samples=50"),
    *("--evaluation.reference_samples=50", "--evaluation.every_kimg=0.032", "--previews.every_kimg=0.032"),
    *("--model.generator.width=8", "--model.discriminator.width=8", "--previews.nearest=0"),
]
