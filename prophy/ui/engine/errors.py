"""What visitors are told: every message goes through :func:`for_visitors`."""

from __future__ import annotations

import re

LONGEST = 300  #: characters of a message

# An absolute path, in quotes or not. A slash after a word, a dot or another slash begins none: 3/4, ../x, https://x/y.
_PATH = re.compile(r"""(?P<quote>['"])(?:/|[A-Za-z]:\\)[^'"]*(?P=quote)|(?<![\w.:/\\])(?:/|[A-Za-z]:\\)[^\s'",;:()]+""")


class EngineError(ValueError):
    """A request cannot be met. The message is for the person who made it."""


def for_visitors(message: str | BaseException) -> str:
    """A message in one line of at most :data:`LONGEST` characters, with no path of this machine.

    Of an absolute path its last part stays; of the system's errors what went wrong and the file's name.
    """
    if isinstance(message, OSError) and message.strerror:
        name = "" if message.filename is None else f": {_last(str(message.filename))}"
        text = f"{message.strerror}{name}"
    elif isinstance(message, KeyError) and message.args:
        text = str(message.args[0])
    else:
        text = str(message)
    text = _PATH.sub(lambda found: f"{found['quote'] or ''}{_last(found[0])}{found['quote'] or ''}", text)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.strip("'\"").rstrip("/\\"))[-1]
