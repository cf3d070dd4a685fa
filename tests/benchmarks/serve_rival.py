"""The server that one writes in an afternoon: FastAPI, one request, one picture.

python -m tests.benchmarks.serve_rival FILE PORT
"""

from __future__ import annotations

import sys
from io import BytesIO

import torch
import uvicorn
from fastapi import Body, FastAPI, Response
from PIL import Image

from launch.inference.loading import load_family

module, _ = load_family(sys.argv[1])
app = FastAPI()


# Not async: FastAPI gives it a thread, and the server goes on.
@app.post("/models/model/generate")
@torch.inference_mode()
def generate(seed: int = Body(embed=True)) -> Response:
    """Sample number ``seed``, as the other server makes it."""
    image = module.generate(torch.tensor([seed]), seed=0)[0]
    pixels = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png")


@app.get("/health")
def health() -> dict[str, str]:
    """Whether it is up."""
    return {"status": "ok"}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
