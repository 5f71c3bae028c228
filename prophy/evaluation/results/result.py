"""The base of every result: its name on disk, where it comes from, saving and strict loading."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar, Self

from pydantic import ConfigDict

from prophy.evaluation.results.documents import as_json
from prophy.files import read_regular, write_text
from prophy.schema import STRICT, decoded

_MAX_BYTES = 2**28
FOLDER = "evaluation"  #: inside ``--work``

#: The command line that is running, as a person would type it; None outside the command line.
running_command: ContextVar[str | None] = ContextVar("running_command", default=None)


def as_typed(program: str, arguments: Sequence[str]) -> str:
    """A command line to record; of an absolute path, which names this machine, only the last part."""
    return shlex.join([*program.split(), *(re.sub(r"(^|=)[/~]\S*/", r"\1", argument) for argument in arguments)])


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from. Release 0.1.0 wrote ``command`` and ``release`` only.

    Attributes:
        kind: the result's, such as ``laws``.
        version: of the kind's fields.
        name: of the file, without ``.json``.
        command: that measured it; None when it was not recorded.
        release: of ProPhy; None in a clone that was never installed.
        date: of the measurement, UTC, ISO 8601.
    """

    kind: str | None = None
    version: int = 1
    name: str | None = None
    command: str | None = None
    release: str | None = None
    date: str | None = None


def stamp(kind: str, name: str, fields: int = 1) -> Provenance:
    """Made here and now: with the command that is running, the release and the time."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Provenance(kind, fields, name, running_command.get(), _release(), now)


def _release() -> str | None:
    try:
        return version("prophy")
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Result:
    """What one evaluation found: ``class LawsResult(Result, kind="laws", command="prophy evaluate laws")``.

    Every subclass is a frozen dataclass too; its fields are its JSON's, beside ``made_by``. What must hold between
    fields it checks in ``__post_init__``, so that whoever has a result need not check again. A field that is added
    later has a default, so that the files of before can still be read.

    Attributes:
        made_by: filled in when the result is written or read.
        kind: names the file; class attribute.
        command: that measures it, in the default work folder; class attribute.
        version: of the fields: raised when a file of before can no longer be read; class attribute.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    made_by: Provenance = field(default=Provenance(), kw_only=True, compare=False, repr=False)
    kind: ClassVar[str]
    command: ClassVar[str]
    version: ClassVar[int]

    def __init_subclass__(cls, *, kind: str, command: str, version: int = 1) -> None:
        super().__init_subclass__()
        cls.kind, cls.command, cls.version = kind, command, version

    @property
    def stem(self) -> str:
        """Name of its file in a work folder, without ``.json``."""
        return self.kind

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of the weights measured, by name; empty where none were."""
        return {}

    def save(self, work: Path, name: str | None = None) -> Self:
        """Write it among a work folder's results; see :meth:`write`."""
        return self.write(Path(work) / FOLDER / f"{name or self.stem}.json")

    def write(self, path: Path) -> Self:
        """Write it whole or not at all, with where it comes from. Returns what :meth:`read` would.

        Raises:
            TypeError, ValueError: it could not be read back, and was not written.
        """
        path = Path(path)
        text = as_json(replace(self, made_by=stamp(self.kind, path.stem, self.version)))
        try:
            result = decoded(type(self), text.encode())
        except ValueError as error:
            raise ValueError(f"{path} was not written: {error}") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        return result

    @classmethod
    def load(cls, work: Path, name: str | None = None) -> Self:
        """Read it from a work folder's results; see :meth:`read`."""
        return cls.read(Path(work) / FOLDER / f"{name or cls.kind}.json")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            FileNotFoundError: it has not been measured.
            ValueError: the file is damaged, of another version or of another kind.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: run `{cls.command}` first")
        return cls.from_json(read_regular(path, _MAX_BYTES), path)

    @classmethod
    def from_json(cls, raw: bytes, path: Path) -> Self:
        """Read the bytes of a file; ``path`` names it in errors.

        Raises:
            ValueError: as :meth:`read`.
        """
        try:
            made_by = provenance(raw)
            if (made_by.kind or cls.kind) != cls.kind:
                raise ValueError(f"it holds {made_by.kind}")
            if made_by.version != cls.version:
                raise ValueError(f"its version is {made_by.version}, this release reads {cls.version}")
            result = decoded(cls, raw)
        except ValueError as error:
            raise ValueError(
                f"{path} is damaged or of another release ({error}): measure it again with `{cls.command}`"
            ) from error
        return replace(result, made_by=replace(result.made_by, name=Path(path).stem))


def provenance(raw: bytes) -> Provenance:
    """Where the result in a file's bytes comes from; the rest of it is not looked at.

    Raises:
        ValueError: the bytes are no JSON, or say it wrongly.
    """
    return decoded(_Header, raw).made_by


def require_alike(what: str, names: Iterable[Iterable[str]]) -> None:
    """Check that parts of a result speak of the same names, and of one at least.

    Raises:
        ValueError: they do not.
    """
    sets = [set(each) for each in names]
    if not sets or not sets[0]:
        raise ValueError(f"no {what}")
    if odd := [sorted(each ^ sets[0])[0] for each in sets if each != sets[0]]:
        raise ValueError(f"{what}: {odd[0]!r} is in one part and missing in another")


@dataclass(frozen=True)
class _Header:
    """The part that every result's file has."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore")

    made_by: Provenance = Provenance()
