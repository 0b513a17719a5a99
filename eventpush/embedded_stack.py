"""The embedded stack, an optional extra: servers run eventpush without it."""

from types import ModuleType

from runtime.platform.errors import OperatorError


def load_embedded_stack() -> ModuleType:
    """Import and return `embedded.stack`; raise `OperatorError` if the extra `embedded` is not installed."""
    try:
        from embedded import stack  # noqa: PLC0415 - optional dependencies
    except ModuleNotFoundError as error:
        raise OperatorError(
            f"{error.name} is not installed, but `eventpush up` needs it",
            "install eventpush with its extra `embedded`",
        ) from None
    return stack
