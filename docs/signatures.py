"""Griffe extension: signatures of constructors, options of a run, and docstring examples as code."""

import ast
import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)Example:$", re.M)
_REFERENCES = re.compile(r"^( *)References:\n((?:(?:\1    .*|(?=\n\1    ))\n?)+)", re.M)
_BASES = ("flax.linen.Module", "typing.NamedTuple")
_DECORATORS = ("flax.struct.dataclass",)


class Signatures(griffe.Extension):
    """Gives Linen modules, NamedTuples and `flax.struct` dataclasses the `__init__` that their fields make.

    A field that is declared with `option(help, ...)` gets the default `None` and its help as docstring.

    Two sections of docstrings are rewritten that griffe would show as boxes: `Example:` becomes `Examples:`, the name
    under which doctests are code, and `References:` becomes a list.
    """

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the two sections in the docstring of `obj`."""
        if obj.docstring is not None:
            text = _EXAMPLE.sub(r"\1Examples:", obj.docstring.value)
            obj.docstring.value = _REFERENCES.sub(_listed, text)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Adds `__init__` to `cls` if its base or its decorator is one of the known ones, and documents its options."""
        made = cls.members.get("__init__")
        for field in cls.attributes.values():
            if isinstance(field.value, griffe.ExprCall) and str(field.value.function) == "option":
                text = ast.literal_eval(str(field.value.arguments[0]))
                field.docstring, field.value = griffe.Docstring(text, parent=field), "None"
                if isinstance(made, griffe.Function):
                    made.parameters[field.name].default = "None"
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
    """The default of a field: its value, or the `default` of its `struct.field(...)`."""
    if isinstance(value, griffe.ExprCall) and str(value.function).endswith("field"):
        named = {a.name: a.value for a in value.arguments if isinstance(a, griffe.ExprKeyword)}
        return named.get("default")
    return value


def _listed(section: re.Match[str]) -> str:
    """References as a list. An entry ends with the line that ends with its address."""
    indent, start, lines = section[1], True, [f"{section[1]}**References:**", ""]
    for line in filter(None, textwrap.dedent(section[2]).splitlines()):
        lines.append(f"{indent}{'- ' if start else '  '}{line}")
        start = re.search(r"https?://\S+$", line) is not None
    return "\n".join([*lines, "", ""])
