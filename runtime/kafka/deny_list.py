"""The deny list of erased devices and drivers, as its topic has it now, under the key that the settings give."""

from collections.abc import Callable

from runtime.kafka.table_topic import Apply
from runtime.platform.errors import OperatorError
from runtime.platform.secret_files import erasure_key
from runtime.platform.settings import Settings
from schemas.erasure import Erased, OtherKeyError, Pseudonyms
from schemas.topics import ERASED


def pseudonyms(settings: Settings) -> Pseudonyms:
    """Return the digests under the configured key; raise `OperatorError` if there is none."""
    key = erasure_key(settings)
    if not key:
        raise OperatorError(
            "EVENTPUSH_ERASURE_KEY is not set, and the deny list of erased devices cannot be read without it",
            "set it, or EVENTPUSH_ERASURE_KEY_FILE, to the same secret for `erase`, every stream worker and every sink",
        )
    return Pseudonyms(key)


def deny_list(settings: Settings) -> Erased:
    """Return an empty list, to be filled from the topic by `applied_to`."""
    return Erased(lambda: pseudonyms(settings))


def applied_to(erased: Erased, then: Callable[[], None] = lambda: None) -> Apply:
    """Return what takes over a record of the topic, then calls `then`.

    It raises `OperatorError` for an entry that this process cannot apply: going on would bring erased rows back.
    """

    def apply(key: bytes | None, value: bytes | None) -> None:
        try:
            erased.apply(key, value)
        except OtherKeyError as error:
            made_with, at_hand = error.args
            raise OperatorError(
                f"{ERASED} has an entry of the erasure key {made_with}, and this process has the key {at_hand}",
                "set EVENTPUSH_ERASURE_KEY, or EVENTPUSH_ERASURE_KEY_FILE, to the key that the erasures were made with",
            ) from None
        then()

    return apply
