"""Names for the parts that can be exchanged: what is registered can be configured, listed and tested by name."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import MISSING, fields
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from parityfl.core.blame import blaming
from parityfl.core.errors import ConfigError, PartError, first_line

T = TypeVar("T")
A = TypeVar("A")


class Registry(Generic[T]):
    """The named classes of one kind, such as the selectors.

    The first line of an entry's docstring and its class attribute `source` (the paper) are what ``parityfl list``
    prints. Classes of other packages join by the decorator or by the entry-point group.

    Args:
        kind: what the entries are, for messages.
        group: the entry-point group of other packages, such as ``parityfl.selectors``.
        base: where it is given, an entry is a frozen dataclass derived from it, whose fields are its configuration
            keys and have defaults.
    """

    def __init__(self, kind: str, group: str, base: type | None = None) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._entries: dict[str, type[T]] = {}
        self._faults: dict[str, str] = {}
        self._loaded = False

    def __call__(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return the class decorator that registers a class under `name`.

        Raises:
            ConfigError: (from the decorator) the name is taken, or the class cannot be an entry; the message says why.
        """
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{self.kind} without a name: write @parityfl.{self.kind}('name') above the class")

        def register(entry: type[T]) -> type[T]:
            self._add(name, entry)
            return entry

        return register

    def names(self) -> list[str]:
        """Return all names, in alphabetical order."""
        self._load()
        return sorted(self._entries)

    def get(self, name: str) -> type[T]:
        """Return the class registered as `name`.

        Other packages are imported only for a name that is not known yet: they may need what is being imported now.

        Raises:
            ConfigError: no such name, and the message lists those there are; or the package that offers it is broken.
        """
        if name not in self._entries:
            self._load()
        if name in self._entries:
            return self._entries[name]
        if name in self._faults:
            raise ConfigError(self._faults[name])
        close = get_close_matches(name, self._entries, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"unknown {self.kind} {name!r}: {hint}there are {', '.join(self.names())}")

    def label(self, part: T | type[T], where: str = "") -> str:
        """Return what messages call a part: its kind, the name that it is registered under, and where in the run."""
        entry = part if isinstance(part, type) else type(part)
        name = next((name for name, known in self._entries.items() if known is entry), entry.__name__)
        return f"{self.kind} {name!r}{where and f', {where}'}"

    def blaming(
        self, part: T | type[T], where: str = "", spared: Callable[[Exception], bool] = lambda _: False
    ) -> AbstractContextManager[None]:
        """Return the context in which a part's own code runs; see `parityfl.core.blame.blaming`.

        Args:
            part: the part, or its class.
            where: where in the run, such as ``round 3``.
            spared: tells what is not the part's fault.
        """
        entry = part if isinstance(part, type) else type(part)
        return blaming(self.label(entry, where), entry, spared)

    def asked(
        self,
        part: T,
        where: str,
        ask: Callable[[], A],
        fault: Callable[[A], str],
        spared: Callable[[Exception], bool] = lambda _: False,
    ) -> A:
        """Return what a part answers.

        Args:
            part: the part.
            where: where in the run, such as ``round 3``.
            ask: asks it.
            fault: says what is wrong with the answer, '' where nothing is.
            spared: tells what is not the part's fault.

        Raises:
            PartError: it is one of another package and raised, or its answer is wrong.
        """
        with self.blaming(part, where, spared):
            answer = ask()
            found = fault(answer)
        if found:
            raise PartError(f"{self.label(part, where)}: {found}; parityfl.testing.check_{self.kind} tells more")
        return answer

    def _add(self, name: str, entry: type[T]) -> None:
        fault = self._fault(name, entry)
        if fault:
            raise ConfigError(f"{self.kind} {name!r} cannot be registered: {fault}")
        known = self._entries.get(name, entry)
        if (known.__module__, known.__qualname__) != (entry.__module__, entry.__qualname__):
            raise ConfigError(f"{self.kind} {name!r} is taken by {known.__module__}; choose another name")
        self._entries[name] = entry

    def _fault(self, name: str, entry: Any) -> str:
        """Return what keeps `entry` from being one of this kind, or nothing."""
        base = self._base
        if not isinstance(entry, type):
            return f"{entry!r} is no class"
        if base is None:
            return ""
        if not issubclass(entry, base):
            return f"{entry.__name__} must be derived from parityfl.{base.__name__}"
        missing = sorted(getattr(entry, "__abstractmethods__", ()))
        if missing:
            return f"{entry.__name__} has no method {' and no '.join(missing)}"
        settings = vars(entry).get("__dataclass_params__")
        if settings is None or not settings.frozen:
            return (
                f"{entry.__name__} is no frozen dataclass: put @dataclass(frozen=True) between the class and "
                f"@parityfl.{self.kind}({name!r})"
            )
        return _key_fault(entry, base)

    def _load(self) -> None:
        """Import what other packages offer, once."""
        if self._loaded:
            return
        self._loaded = True
        for point in entry_points(group=self.group):
            self._load_point(point)

    def _load_point(self, point: EntryPoint) -> None:
        """Register an entry point; a package that is broken is a fault of the names it offers and of no others."""
        try:
            self._add(point.name, point.load())
        except Exception as error:  # whatever the import of a stranger's module raises
            owner = f"of package {point.dist.name} {point.dist.version}" if point.dist else f"({point.value})"
            self._faults[point.name] = (
                f"{self.kind} {point.name!r} {owner} cannot be used: {first_line(error)}; "
                "repair or uninstall the package"
            )


def _key_fault(entry: Any, base: type) -> str:
    """Say which key of a dataclass has no default, or is wanted by its base and missing; '' where there is none."""
    keys = {key.name: key for key in fields(entry)}
    bare = [key.name for key in keys.values() if key.default is MISSING and key.default_factory is MISSING]
    wanted = [name for name in base.__annotations__ if not hasattr(base, name) and name not in keys]
    if bare or wanted:
        return f"its key {[*bare, *wanted][0]!r} has no default: every key needs one"
    return ""
