"""Load the operator's function: `script.py:function`."""

import hashlib
from pathlib import Path

from eventpush.dead_letters.repair import Function
from runtime.platform.errors import OperatorError


def load(script: str) -> tuple[Function, str]:
    """Return the function and the SHA-256 of its file; raise `OperatorError` if there is no such function."""
    path_text, _, name = script.rpartition(":")
    remedy = "write --with FILE.py:FUNCTION, where the function takes a payload as a dict and returns the repaired one"
    try:
        source = Path(path_text).read_bytes()
    except OSError as error:
        raise OperatorError(f"--with {script}: the file cannot be read ({error.strerror})", remedy) from None
    scope: dict[str, object] = {"__name__": "repair", "__file__": path_text}
    try:
        exec(compile(source, path_text, "exec"), scope)  # noqa: S102 - the operator's own code, by their own command
    except Exception as error:
        raise OperatorError(f"--with {script}: {type(error).__name__}: {error}", "correct the file") from None
    function = scope.get(name)
    if not callable(function):
        raise OperatorError(f"--with {script}: the file has no function {name!r}", remedy)
    return function, hashlib.sha256(source).hexdigest()
