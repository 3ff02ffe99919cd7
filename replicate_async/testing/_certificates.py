"""The certificates of an emulator that serves HTTPS: an authority of its own, made with trustme."""

from __future__ import annotations

import ipaddress
import shutil
import ssl
import tempfile
import weakref
from functools import partial
from pathlib import Path
from typing import Final

_NAMES: Final = ("127.0.0.1", "::1", "localhost")


class Authority:
    """A certificate authority, and a certificate for this machine that it has signed.

    Args:
        host: Address that the emulator listens on; the certificate names it, too.

    Raises:
        ModuleNotFoundError: trustme is not installed.
    """

    def __init__(self, host: str) -> None:
        try:
            import trustme
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Emulator(tls=True) makes its certificates with trustme, which cannot be imported"
                f" ({error}): pip install 'replicate-async[tls]'",
                name=error.name,
            ) from error
        authority = trustme.CA(organization_name="replicate_async emulator")
        names = _NAMES if _is_any(host) else (*_NAMES, host)
        self.context: ssl.SSLContext = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """Context of the servers."""
        self.context.set_alpn_protocols(["http/1.1"])
        authority.issue_cert(*dict.fromkeys(names)).configure_cert(self.context)
        directory = Path(tempfile.mkdtemp(prefix="replicate-emulator-"))
        # Emulators may be dropped without having been stopped, or run until the interpreter exits.
        self.remove: weakref.finalize[[], Authority] = weakref.finalize(
            self, partial(shutil.rmtree, directory, ignore_errors=True)
        )
        """Removes the file."""
        self.path: Path = directory / "ca.pem"
        """File with the certificate of the authority, in PEM format."""
        authority.cert_pem.write_to_path(str(self.path))


def _is_any(host: str) -> bool:
    """Return whether a server that listens on *host* listens on all addresses."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
