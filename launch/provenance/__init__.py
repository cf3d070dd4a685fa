"""Where pictures come from, signed and verifiable: C2PA credentials, fingerprints, watermarks.

``sign`` and ``sign_file`` are for whoever answers with pictures; ``Publication`` is for whoever writes them into files;
``Verifier`` judges files. All need ``gesso[provenance]``.
"""

from launch.provenance.credentials import Parent, check_identity, sign, sign_file
from launch.provenance.identity import Identity, make_test_certificate, read_identity
from launch.provenance.publication import Publication, facts_of
from launch.provenance.verification import Verdict, Verifier

__all__ = [
    "Identity",
    "Parent",
    "Publication",
    "Verdict",
    "Verifier",
    "check_identity",
    "facts_of",
    "make_test_certificate",
    "read_identity",
    "sign",
    "sign_file",
]
