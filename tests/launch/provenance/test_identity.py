"""Keys and certificates: what is refused, in one line."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from launch.provenance.identity import make_test_certificate, read_anchors, read_identity


def write_key(file: Path, key: object, password: bytes | None = None) -> Path:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how
    file.write_bytes(key.private_bytes(*pem))  # type: ignore[attr-defined]
    return file


def write_certificate(file: Path, key: object, begin: datetime, days: int) -> Path:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=days))
    made = builder.public_key(key.public_key()).sign(  # type: ignore[attr-defined]
        key,  # type: ignore[arg-type]
        None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256(),
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return file


def test_a_test_certificate_is_read_and_its_key_is_its_owners_alone(tmp_path: Path) -> None:
    key, certificate, root = make_test_certificate(tmp_path / "new" / "keys", "me")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    signer = read_identity(key, certificate)
    assert (signer.algorithm, signer.name) == ("es256", "me")
    own, above = x509.load_pem_x509_certificates(signer.chain)
    own.verify_directly_issued_by(above)
    assert read_anchors(root) == above.public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(ValueError, match="key.pem: is there already"):
        make_test_certificate(tmp_path / "new" / "keys")


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ec.generate_private_key(ec.SECP521R1()), "es512"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_kinds_of_keys(key: object, algorithm: str, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path / "cert.pem", key, datetime.now(UTC) - timedelta(days=1), 2)
    assert read_identity(write_key(tmp_path / "key.pem", key), certificate).algorithm == algorithm


def test_what_will_not_do_is_refused_in_one_line(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    key, certificate, _ = make_test_certificate(tmp_path)
    curve = ec.generate_private_key(ec.SECP256R1())
    other = write_key(tmp_path / "other.pem", curve)
    strange = ec.generate_private_key(ec.SECP256K1())
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n")
    for given, chain, says in (
        (tmp_path / "none.pem", certificate, "none.pem: no such key"),
        (key, tmp_path / "none.pem", "none.pem: no such certificate"),
        (certificate, certificate, "cert.pem: no private key in PEM"),
        (nonsense, certificate, "nonsense.pem: no private key in PEM"),
        (key, key, "key.pem: no certificate in PEM"),
        (other, certificate, "other.pem is not the key of"),
        (write_key(tmp_path / "locked.pem", curve, b"secret"), certificate, "locked.pem: has a password"),
        (write_key(tmp_path / "k1.pem", strange), certificate, "k1.pem: keys on curve secp256k1 cannot sign"),
        (write_key(tmp_path / "dsa.pem", dsa.generate_private_key(1024)), certificate, "dsa.pem: a key of this kind"),
        (
            write_key(tmp_path / "short.pem", rsa.generate_private_key(65537, 1024)),
            certificate,
            "an RSA key of 1024 bits",
        ),
        (
            other,
            write_certificate(tmp_path / "old.pem", curve, now - timedelta(days=9), 2),
            "old.pem: has expired on",
        ),
        (
            other,
            write_certificate(tmp_path / "new.pem", curve, now + timedelta(days=9), 2),
            "new.pem: is not valid before",
        ),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=says) as error:
            read_identity(given, chain)
        assert "\n" not in str(error.value)
