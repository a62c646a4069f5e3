"""Griffe extension: the constructor's signature of Linen modules, NamedTuples and `flax.struct` dataclasses."""

from typing import Any

import griffe

_BASES = ("flax.linen.Module", "typing.NamedTuple")
_DECORATORS = ("flax.struct.dataclass",)


class FieldSignatures(griffe.Extension):
    """Gives a class whose fields make its constructor an `__init__`, which mkdocstrings shows beside its name."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Adds `__init__` to `cls` if its base or its decorator is one of the known ones."""
        bases = [getattr(base, "canonical_path", "") for base in cls.bases]
        decorators = [getattr(decorator.value, "canonical_path", "") for decorator in cls.decorators]
        if "__init__" in cls.members or not ({*bases} & {*_BASES} or {*decorators} & {*_DECORATORS}):
            return
        fields = [m for m in cls.attributes.values() if m.annotation is not None and "property" not in m.labels]
        kind = griffe.ParameterKind.positional_or_keyword
        parameters = [griffe.Parameter("self", kind=kind)]
        parameters += [
            griffe.Parameter(f.name, annotation=f.annotation, kind=kind, default=_default(f.value)) for f in fields
        ]
        init = griffe.Function("__init__", parameters=griffe.Parameters(*parameters), returns="None", parent=cls)
        cls.set_member("__init__", init)


def _default(value: Any) -> Any:
    """The default of a field: what it is set to, or the `default` of its `struct.field(...)`."""
    if isinstance(value, griffe.ExprCall) and str(value.function).endswith("field"):
        named = {a.name: a.value for a in value.arguments if isinstance(a, griffe.ExprKeyword)}
        return named.get("default")
    return value
