"""The image's health check: `python -m eventpush.healthcheck URL…` exits with 0 if one of the URLs answers 200.

A container runs one service, and each service answers `/readyz` on a port of its own: asking all of them works whatever
the command. This module imports only the standard library, because it runs every few seconds.
"""

import sys
import urllib.error
import urllib.request
from collections.abc import Iterable

_TIMEOUT_S = 3.0


def any_ready(urls: Iterable[str]) -> bool:
    """Return whether one of the URLs answers with a status of success."""
    return any(map(_ready, urls))


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S):  # noqa: S310 - the image names the URLs
            return True
    except urllib.error.HTTPError as answer:  # such as 503
        answer.close()
        return False
    except OSError:  # refused or timed out
        return False


if __name__ == "__main__":
    sys.exit(0 if any_ready(sys.argv[1:]) else 1)
