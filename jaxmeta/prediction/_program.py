"""The check of a program that came in a file: it can only compute, and its loops end."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from jax import export
from jax.extend.mlir import ir
from jax.interpreters import mlir

_ELEMENTWISE = (
    "abs add and atan2 bitcast_convert cbrt ceil clamp compare complex convert cosine count_leading_zeros divide "
    "exponential exponential_minus_one floor imag is_finite log log_plus_one logistic maximum minimum multiply negate "
    "not or popcnt power real reduce_precision remainder round_nearest_afz round_nearest_even rsqrt select shift_left "
    "shift_right_arithmetic shift_right_logical sign sine sqrt subtract tan tanh xor"
)
_SHAPES = (
    "broadcast broadcast_in_dim concatenate constant dynamic_broadcast_in_dim dynamic_gather dynamic_iota dynamic_pad "
    "dynamic_reshape dynamic_slice dynamic_update_slice gather get_dimension_size iota pad real_dynamic_slice reshape "
    "reverse scatter select_and_scatter slice transpose"
)
_OTHERS = (
    "batch_norm_inference case cholesky composite convolution custom_call dot_general dynamic_conv fft if map "
    "optimization_barrier reduce reduce_window return rng_bit_generator sort triangular_solve while"
)
_OPERATIONS = {f"stablehlo.{name}" for name in f"{_ELEMENTWISE} {_SHAPES} {_OTHERS}".split()}
_OPERATIONS |= {"builtin.module", "func.func", "func.call", "func.return", "chlo.erf", "chlo.erf_inv", "chlo.top_k"}
_OPERATIONS |= {"chlo.lgamma", "chlo.digamma", "chlo.square", "chlo.tan", "chlo.sinh", "chlo.cosh", "chlo.asin"}
_TARGETS = {"shape_assertion", "stablehlo.dynamic_top_k"}
"""Custom calls that are part of StableHLO. Others call native code, which trusts the shapes that it is told."""
_ALIKE = {"cu_threefry2x32_ffi"}
"""Native code that is called for arrays of one shape only, such as JAX's random numbers on a GPU."""
_MOST_WRITTEN = 200_000  # operations, with a function counted wherever it is called
_MOST_RUN = 20_000_000  # operations, with the body of a loop counted as often as it runs
_MOST_NUMBERS = 1 << 28  # in one array, with one input


class _Count(NamedTuple):
    """Numbers of operations: those that the compiler sees, and those that run."""

    written: int
    run: int


def check_program(exported: export.Exported) -> None:
    """Checks that a program only computes, and that its loops end.

    Args:
        exported: the program.

    Raises:
        ValueError: if it has an operation that is not known to be harmless, such as a call of Python or of other native
            code, an endless loop, or too many operations.
    """
    try:
        with mlir.make_ir_context():
            module = ir.Module.parse(exported.mlir_module())
            functions = {ir.StringAttr(op.attributes["sym_name"]).value: op for op in module.body.operations}
            counter = _Counter(functions)
            for name in functions:
                counter.function(name)
    except ValueError:
        raise
    except Exception as error:  # whatever MLIR makes of a program that is none
        raise ValueError(f"its program is not readable ({type(error).__name__}: {error})") from error


class _Counter:
    """Walk through the functions of a module that checks and counts their operations."""

    def __init__(self, functions: dict[str, Any]) -> None:
        self._functions = functions
        self._counts: dict[str, _Count | None] = {}

    def function(self, name: str) -> _Count:
        """Returns the operations of a function, and refuses one that calls itself."""
        if name in self._counts:
            found = self._counts[name]
            if found is None:
                raise ValueError(f"the function {name} of its program calls itself")
            return found
        if name not in self._functions:
            raise ValueError(f"its program calls a function {name} that is not there")
        self._counts[name] = None
        found = self._counts[name] = self._inside(self._functions[name])
        return found

    def _inside(self, op: Any) -> _Count:
        """Returns the operations in the regions of an operation."""
        counts = [self._operation(inner) for region in op.regions for block in region.blocks for inner in block]
        return _checked(sum(count.written for count in counts), sum(count.run for count in counts))

    def _operation(self, op: Any) -> _Count:
        name = op.operation.name
        if name not in _OPERATIONS or name == "func.func":
            raise ValueError(f"its program has the operation {name}, which is not allowed")
        if name == "stablehlo.custom_call":
            _check_target(op)
        for result in op.operation.results:
            _check_size(name, result.type)
        counts = [self._inside(op), *(self.function(callee) for callee in _callees(op))]
        times = _trips(op) if name == "stablehlo.while" else 1
        return _checked(1 + sum(c.written for c in counts), 1 + times * sum(c.run for c in counts))


def _checked(written: int, run: int) -> _Count:
    if written > _MOST_WRITTEN or run > _MOST_RUN:
        raise ValueError(f"its program has more than {_MOST_WRITTEN} operations, or runs more than {_MOST_RUN}")
    return _Count(written, run)


def _check_target(op: Any) -> None:
    target = ir.StringAttr(op.attributes["call_target_name"]).value
    alike = len({str(value.type) for value in [*op.operands, *op.operation.results]}) == 1
    if target not in _TARGETS and not (target in _ALIKE and alike):
        raise ValueError(f"its program calls {target!r}, which is code outside of the file, and is not allowed")


def _check_size(name: str, kind: Any) -> None:
    """Raises ValueError if an array is too large, even for a batch of one."""
    if not isinstance(kind, ir.ShapedType):
        return
    numbers = 1
    for axis in range(kind.rank):
        numbers *= 1 if kind.is_dynamic_dim(axis) else kind.get_dim_size(axis)
    if numbers > _MOST_NUMBERS:
        raise ValueError(f"its program makes an array of {numbers} numbers by {name}, which is more than is allowed")


def _callees(op: Any) -> Iterator[str]:
    """Yields the names of the functions that an operation refers to."""
    for number in range(len(op.attributes)):
        value = op.attributes[number].attr
        if isinstance(value, ir.FlatSymbolRefAttr):
            yield value.value
        elif isinstance(value, ir.ArrayAttr):
            yield from (item.value for item in value if isinstance(item, ir.FlatSymbolRefAttr))


def _trips(op: Any) -> int:
    """Returns how often a loop runs: a counter goes from a constant to another by ones, as in `fori_loop` and `scan`.

    Raises:
        ValueError: if it is another loop, of which nobody knows whether it ends.
    """
    condition, body = (region.blocks[0] for region in op.regions)
    (answer,) = list(condition)[-1].operands
    compared = _maker(answer, "stablehlo.compare")
    if compared is None or "LT" not in str(compared.attributes["comparison_direction"]):
        raise ValueError(_ENDLESS)
    counter, last = compared.operands
    place = _place(counter, condition)
    step = _maker(list(body)[-1].operands[place], "stablehlo.add")
    if step is None or _place(step.operands[0], body) != place or _constant(step.operands[1]) != 1:
        raise ValueError(_ENDLESS)
    return max(0, _constant(last) - _constant(op.operands[place]))


def _maker(value: Any, name: str) -> Any:
    """Returns the operation that makes a value, if it has that name."""
    maker = getattr(value.owner, "operation", None)  # a block has none
    return maker if maker is not None and maker.name == name else None


def _place(value: Any, block: Any) -> int:
    """Returns the number of an argument of a block."""
    for number, argument in enumerate(block.arguments):
        if argument == value:
            return number
    raise ValueError(_ENDLESS)


def _constant(value: Any) -> int:
    made = _maker(value, "stablehlo.constant")
    if made is None:
        raise ValueError(_ENDLESS)
    (number,) = ir.DenseIntElementsAttr(made.attributes["value"])
    return int(number)


_ENDLESS = "its program has a loop that does not count to a constant, and may be endless"
