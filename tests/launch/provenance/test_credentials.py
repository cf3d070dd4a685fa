"""Credentials as they are written, read back by the C2PA library itself."""

from __future__ import annotations

import http.server
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.launch.provenance.signers import encoded, identity

c2pa = pytest.importorskip("c2pa")

from launch.provenance.credentials import EDITED, GENERATED, Parent, context, sign, sign_file  # noqa: E402
from launch.provenance.verification import Verifier  # noqa: E402


def read(data: bytes, mime: str) -> dict[str, Any]:
    """The report of a reader that has the library's own settings, not ours."""
    with c2pa.Reader(mime, io.BytesIO(data)) as reader:
        return json.loads(reader.json())


def active(report: dict[str, Any]) -> dict[str, Any]:
    return report["manifests"][report["active_manifest"]]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_generated_picture_says_so_and_keeps_its_pixels(format: str, tmp_path: Path) -> None:
    data, mime = encoded(format), f"image/{format.lower()}"
    facts = {"run": "r", "seed": 2**63 - 1, "styles": [{"name": "a.png", "licence": "CC0-1.0"}]}
    signed = sign(data, identity(tmp_path), facts, title="a picture")
    report = read(signed, mime)
    manifest = active(report)
    assert report["validation_state"] == "Valid"
    assertions = {one["label"]: one["data"] for one in manifest["assertions"]}
    assert assertions["org.gesso.run"] == facts
    (action,) = assertions["c2pa.actions.v2"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", GENERATED)
    assert "thumbnail" not in manifest
    assert manifest["title"] == "a picture"
    assert len(signed) - len(data) < 4500
    opened = [np.asarray(Image.open(io.BytesIO(file))) for file in (data, signed)]
    np.testing.assert_array_equal(*opened)


def test_lists_of_numbers_can_be_read_again(tmp_path: Path) -> None:
    # Readers give those back as base64 of what numbers would be as bytes: [300, 2] as that of 44 and 2.
    facts = {"weights": [0.25, 0.75], "sampling": {"interval": (300, 2)}, "named": ["a", "b"], "none": []}
    manifest = active(read(sign(encoded("PNG"), identity(tmp_path), facts), "image/png"))
    (found,) = (one["data"] for one in manifest["assertions"] if one["label"] == "org.gesso.run")
    assert found == {"weights": "0.25, 0.75", "sampling": {"interval": "300, 2"}, "named": ["a", "b"], "none": []}


def test_a_foreign_credential_is_kept_as_the_parents(tmp_path: Path) -> None:
    camera = identity(tmp_path / "camera", "a camera")
    photograph = sign(encoded("JPEG"), camera, {}, title="photograph.jpg")
    signed = sign(encoded("PNG"), identity(tmp_path), {}, parent=Parent("photograph.jpg", photograph))
    report = read(signed, "image/png")
    manifest = active(report)
    (parent,) = manifest["ingredients"]
    assert (parent["relationship"], parent["title"]) == ("parentOf", "photograph.jpg")
    assert report["manifests"][parent["active_manifest"]]["signature_info"]["common_name"] == "a camera"
    actions = next(one["data"]["actions"] for one in manifest["assertions"] if one["label"] == "c2pa.actions.v2")
    assert [one["action"] for one in actions] == ["c2pa.opened", "c2pa.edited"]
    assert actions[1]["digitalSourceType"] == EDITED
    assert actions[0]["parameters"]["ingredients"]


@pytest.mark.parametrize("kind", ["broken", "unknown", "unsigned"])
def test_any_photograph_can_be_a_parent(kind: str, tmp_path: Path) -> None:
    signer = identity(tmp_path)
    photograph = sign(encoded("PNG"), signer, {}, title="a")
    content = {
        "broken": photograph[:900] + bytes(40) + photograph[940:],
        "unknown": encoded("BMP"),
        "unsigned": encoded("JPEG"),
    }[kind]
    report = read(sign(encoded("PNG"), signer, {}, parent=Parent("photograph", content)), "image/png")
    (parent,) = active(report)["ingredients"]
    assert report["validation_state"] == "Valid"
    assert parent["title"] == "photograph"


def test_what_holds_no_credentials_and_what_certificates_cannot_sign_is_refused(tmp_path: Path) -> None:
    signer = identity(tmp_path)
    with pytest.raises(ValueError, match="a.bmp: is no PNG, JPEG, WebP or MP4"):
        sign(encoded("BMP"), signer, {}, title="a.bmp")
    root = (tmp_path / "root.pem").read_bytes()
    with pytest.raises(ValueError, match="a.png: cannot be signed by gesso test signer"):
        sign(encoded("PNG"), type(signer)(signer.algorithm, root, signer.name, signer.key), {}, title="a.png")
    assert "PRIVATE" not in repr(signer)


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    signer = identity(tmp_path)
    file = tmp_path / "a.png"
    file.write_bytes(encoded("BMP"))
    before = file.read_bytes(), sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="a.png"):
        sign_file(file, signer, {})
    assert (file.read_bytes(), sorted(tmp_path.iterdir())) == before


def test_nothing_is_fetched(tmp_path: Path) -> None:
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    signer = identity(tmp_path)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
        builder = c2pa.Builder({"title": "a", "assertions": []}, context())
        builder.set_remote_url(url)
        builder.set_no_embed()
        info = c2pa.C2paSignerInfo(signer.algorithm, signer.chain, signer.key, None)
        out = io.BytesIO()
        builder.sign(c2pa.Signer.from_info(info), "image/png", io.BytesIO(encoded("PNG")), out)
        file = tmp_path / "elsewhere.png"
        file.write_bytes(out.getvalue())
        assert url.encode() in out.getvalue()
        verdict = Verifier().verify(file)
        assert read(sign(encoded("PNG"), signer, {}, parent=Parent.of(file)), "image/png")
        server.shutdown()
        thread.join()
    assert asked == []
    assert verdict.line().endswith("unsigned: its credentials lie elsewhere; nothing is fetched")
