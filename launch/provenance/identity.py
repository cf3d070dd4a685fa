"""Who signs: a private key and the chain of its certificate, checked before anything is made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gesso.common.extras import needing
from gesso.common.files import write_whole

with needing("provenance"):
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: What C2PA calls the signatures of keys on these curves.
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
#: The organisation that test certificates name; what they sign is believed by nobody.
TEST_ORGANISATION = "gesso test certificate"
#: A test certificate is good for so long.
TEST_DAYS = 365
#: The files of a test certificate: key, chain, and what ``gesso verify --trust`` takes.
TEST_FILES = ("key.pem", "cert.pem", "root.pem")


@dataclass(frozen=True)
class Identity:
    """A key and its certificate, ready to sign.

    Args:
        algorithm: C2PA's name of the signature, such as es256.
        chain: the certificates in PEM, the signer's own first.
        name: of the signer, by the certificate.
        key: the private key in PEM (PKCS #8).
    """

    algorithm: str
    chain: bytes
    name: str
    key: bytes = field(repr=False)


def read_identity(key: Path, certificate: Path) -> Identity:
    """Reads a key and its certificate, and checks that they belong together and are good today.

    Args:
        key: a private key in PEM, without a password: on curve P-256, P-384 or P-521, Ed25519, or RSA.
        certificate: its certificate in PEM, with those that lead to the root after it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no key or certificate, they do not belong together, or the certificate is not valid today.
    """
    private = _read_key(key)
    chain = read_certificates(certificate)
    own = chain[0]
    if own.public_key() != private.public_key():
        raise ValueError(f"{key} is not the key of {certificate}: their public keys differ")
    now = datetime.now(UTC)
    if now > own.not_valid_after_utc:
        raise ValueError(f"{certificate}: has expired on {own.not_valid_after_utc:%Y-%m-%d}; ask for a new one")
    if now < own.not_valid_before_utc:
        raise ValueError(f"{certificate}: is not valid before {own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    pem = serialization.Encoding.PEM
    return Identity(
        algorithm=_algorithm(private),
        chain=b"".join(one.public_bytes(pem) for one in chain),
        name=_common_name(own),
        key=private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def read_certificates(file: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, in their order; at least one.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it holds none.
    """
    try:
        return x509.load_pem_x509_certificates(_bytes_of(file, "certificate"))
    except ValueError as error:
        raise ValueError(f"{file}: no certificate in PEM ('-----BEGIN CERTIFICATE-----')") from error


def read_anchors(file: Path) -> str:
    """The certificates of a PEM file, in PEM without what else is in it; see ``read_certificates``."""
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in read_certificates(file))


def make_test_certificate(folder: Path, name: str = "gesso test signer") -> tuple[Path, Path, Path]:
    """Makes a key, its certificate and the root that vouches for it, for trying things out; the root's key is not kept.

    Args:
        folder: where ``key.pem`` (which its owner alone can read), ``cert.pem`` and ``root.pem`` are written.
        name: of the signer.

    Returns:
        The three files.

    Raises:
        ValueError: one of them is there already.
        OSError: they cannot be written.
    """
    files = tuple(folder / name for name in TEST_FILES)
    for file in files:
        if os.path.lexists(file):
            raise ValueError(f"{file}: is there already: name another folder, so that no key is lost")
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = _test_name("gesso test root")
    root = (
        _certificate(root_name, root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    own = (
        _certificate(_test_name(name), root_name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        # C2PA demands a purpose; of those it accepts, this one is known everywhere.
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(files[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(secret)
    write_whole(files[1], own.public_bytes(pem) + root.public_bytes(pem))
    write_whole(files[2], root.public_bytes(pem))
    return files[0], files[1], files[2]


def _read_key(file: Path) -> ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(_bytes_of(file, "key"), password=None)
    except TypeError as error:
        raise ValueError(
            f"{file}: has a password, which nobody would type: openssl pkey -in {file.name} -out plain.pem takes it off"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{file}: no private key in PEM ('-----BEGIN PRIVATE KEY-----')") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise ValueError(f"{file}: a key of this kind cannot sign credentials: take one on curve P-256")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in CURVES:
        raise ValueError(f"{file}: keys on curve {key.curve.name} cannot sign credentials: take one on curve P-256")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < 2048:
        raise ValueError(f"{file}: an RSA key of {key.key_size} bits is too short: 2048 or more")
    return key


def _algorithm(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return CURVES[key.curve.name]
    return "ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "ps256"


def _bytes_of(file: Path, what: str) -> bytes:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such {what}; `gesso sign --make-test-certificate DIR` makes one to try")
    return file.read_bytes()


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def _test_name(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, TEST_ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int = TEST_DAYS
) -> x509.CertificateBuilder:
    # An hour back, for clocks that are behind.
    begin = datetime.now(UTC) - timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*names: str) -> x509.KeyUsage:
    allowed = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**allowed, **dict.fromkeys(names, True)})
