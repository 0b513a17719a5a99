"""The embedded stack, where its packages are installed: a server has eventpush without them."""

from types import ModuleType

from runtime.errors import Problem


def embedded_stack() -> ModuleType:
    """Import `embedded.stack`; raise `Problem` if the extra `embedded` is not installed."""
    try:
        from embedded import stack  # noqa: PLC0415 - optional dependencies
    except ModuleNotFoundError as error:
        raise Problem(
            f"{error.name} is not installed, and the stack of `eventpush up` needs it",
            "install eventpush with its extra `embedded`",
        ) from None
    return stack
