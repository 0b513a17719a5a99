"""TLS in the process itself: 1.2 and newer, the certificate read again when it changes, client certificates if asked.

New connections get the new certificate; those that are open keep theirs.
"""

import ssl
from pathlib import Path

from ingress.access.file_watcher import FileWatcher
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings


class Tls:
    """The context for the listener (None: plain HTTP) and what to watch."""

    def __init__(self, settings: Settings) -> None:
        self.context: ssl.SSLContext | None = None
        cert, key, ca = (
            settings.ingress_tls_cert_file,
            settings.ingress_tls_key_file,
            settings.ingress_tls_client_ca_file,
        )
        if cert is None:
            if key is not None or ca is not None:
                raise OperatorError("TLS settings without EVENTPUSH_INGRESS_TLS_CERT_FILE", "set it, or none of them")
            self.reloading = FileWatcher([], lambda: None)
            return
        live = self.context = _context(cert, key, ca)

        def load() -> None:
            _context(cert, key, ca)  # tried on another context first: a broken pair must not reach the live one
            live.load_cert_chain(cert, key)

        self.reloading = FileWatcher([file for file in (cert, key) if file], load)


def _context(cert: Path, key: Path | None, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(
            f"the TLS files cannot be used: EVENTPUSH_INGRESS_TLS_CERT_FILE={cert}, KEY_FILE={key}, "
            f"CLIENT_CA_FILE={client_ca} ({error.strerror or error})",
            "name readable PEM files whose key and certificate belong together",
        ) from None
    return context
