"""TLS contexts of connections that we open: to Kafka and to ClickHouse."""

import ssl

from runtime.platform.errors import OperatorError
from runtime.platform.settings import Settings, variable


def client_context(settings: Settings, prefix: str) -> ssl.SSLContext:
    """Return a context that checks certificates and host names, from the settings `{prefix}_ca_file` and so on.

    Without a CA file the system's authorities are trusted. With a certificate, the server gets it when it asks. Raises
    `OperatorError` for an unusable file, with its variable.
    """
    ca, cert, key = (getattr(settings, f"{prefix}_{name}_file") for name in ("ca", "cert", "key"))
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise OperatorError(
            f"{variable(f'{prefix}_ca_file')}={ca} is unusable ({_reason(error)})",
            "name a readable file of PEM certificates",
        ) from None
    if cert is None and key is not None:
        raise OperatorError(
            f"{variable(f'{prefix}_key_file')} is set without its certificate", f"set {variable(f'{prefix}_cert_file')}"
        )
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except OSError as error:
            raise OperatorError(
                f"{variable(f'{prefix}_cert_file')}={cert} with its key {key or 'in the same file'} is unusable "
                f"({_reason(error)})",
                "name readable PEM files with a matching certificate and key, without a passphrase",
            ) from None
    return context


def _reason(error: OSError) -> str:
    return error.strerror or str(error)  # an SSLError is an OSError, sometimes with an empty message
