"""A certificate of the tests' own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.requirements import require_executable


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1; return the paths of it and of its key."""
    certfile, keyfile = directory / 'cert.pem', directory / 'key.pem'
    subprocess.run(
        [
            *(require_executable('openssl'), 'req', '-x509', '-newkey', 'ec', '-nodes'),
            *('-pkeyopt', 'ec_paramgen_curve:P-256'),
            *('-keyout', str(keyfile), '-out', str(certfile), '-days', '2'),
            *('-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'),
        ],
        check=True,
        capture_output=True,
    )
    return certfile, keyfile
