"""Optional packages: brax, gymnasium and Meta-World are imported on first use only."""

import functools
import importlib
from typing import Any, ClassVar

from jaxmeta._checks import check_installed


def deferred_base(module: str, name: str, extra: str) -> Any:
    """Returns a stand-in for a class of an optional package, to derive from without importing the package.

    The package is imported when the first instance is made. Instances belong to a class that has both the derived class
    and the package's class as bases, so `isinstance` and `super` work for both of them.

    Args:
        module: module of the class, such as `"gymnasium"`.
        name: name of the class, such as `"Env"`.
        extra: extra of jaxmeta that contains the package.
    """
    return type(f"Deferred{name}", (_Deferred,), {"_base": (module, name, extra)})


class _Deferred:
    """Base of the stand-ins."""

    _base: ClassVar[tuple[str, str, str]]

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Deferred":
        del args, kwargs
        return object.__new__(_completed(cls))

    def __reduce__(self) -> tuple[Any, ...]:
        # The completed class has no importable name, so that pickle must go through the class that it completes.
        return _new, (type(self).__bases__[0],), self.__dict__


def _new(cls: type[_Deferred]) -> _Deferred:
    """Returns an instance without attributes."""
    return cls.__new__(cls)


@functools.cache
def _completed(cls: type[_Deferred]) -> type[_Deferred]:
    """Returns the class with the package's class as a second base."""
    module, name, extra = cls._base
    check_installed(module.split(".")[0], cls.__name__, extra)
    base = getattr(importlib.import_module(module), name)
    namespace = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls, base), namespace)
