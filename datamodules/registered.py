"""What a user's own files have registered, by kind and name: so that a file that registers nothing can be told."""

from collections.abc import Container

REGISTERED: set[tuple[str, str]] = set()


def note(kind: str, name: str, known: Container[str]) -> None:
    """Note a name that is about to be registered.

    Args:
        kind: in words, such as "data set". known: the names that there are.

    Raises:
        ValueError: there is one of that name.
    """
    if name in known:
        raise ValueError(f"there is a {kind} {name!r} already: choose another name.")
    REGISTERED.add((kind, name))
