"""Modules of the user, whose learners, models, benchmarks and environments register themselves at import."""

import importlib
import importlib.util
import sys
from pathlib import Path

_LOADED: dict[str, None] = {}


def load_module(name: str) -> None:
    """Imports a module by its file or its dotted name. The copy of a file that is loaded is not loaded again.

    Args:
        name: path of a Python file, or the name of an importable module.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: if there is no such module.
    """
    if name.endswith(".py"):
        path = Path(name).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"module {name} does not exist")
        key = f"jaxmeta_user_{path.stem}"
        loaded = getattr(sys.modules.get(key), "__file__", None)
        if loaded is None or (loaded != str(path) and Path(loaded).read_bytes() != path.read_bytes()):
            spec = importlib.util.spec_from_file_location(key, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[key] = module
            spec.loader.exec_module(module)
            _LOADED[str(path)] = None
        return
    importlib.import_module(name)
    _LOADED[name] = None


def loaded_modules() -> list[str]:
    """Returns the modules that were loaded, for the record of a run."""
    return list(_LOADED)
