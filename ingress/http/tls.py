"""TLS 1.2 and newer in the process itself, with client certificates if configured.

A changed certificate is reloaded: new connections get the new one, open connections keep theirs.
"""

import ssl
from pathlib import Path

from ingress.access.file_watcher import FileWatcher
from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings


class Tls:
    """The listener's context (None: plain HTTP), and the watcher of its files."""

    def __init__(self, settings: Settings) -> None:
        self.context: ssl.SSLContext | None = None
        cert, key, ca = (
            settings.ingress_tls_cert_file,
            settings.ingress_tls_key_file,
            settings.ingress_tls_client_ca_file,
        )
        if cert is None:
            if key is not None or ca is not None:
                raise OperatorError(
                    "TLS settings without EVENTPUSH_INGRESS_TLS_CERT_FILE", "set it, or unset the others"
                )
            self.watcher = FileWatcher([], lambda: None)
            return
        live = self.context = _context(cert, key, ca)

        def load() -> None:
            _context(cert, key, ca)  # a broken pair must not reach the live context
            live.load_cert_chain(cert, key)

        self.watcher = FileWatcher([file for file in (cert, key) if file], load)


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
            f"unusable TLS files: EVENTPUSH_INGRESS_TLS_CERT_FILE={cert}, KEY_FILE={key}, "
            f"CLIENT_CA_FILE={client_ca} ({error.strerror or error})",
            "name readable PEM files with a matching key and certificate",
        ) from None
    return context
