"""Gradients transformed by neural networks, one Flax module per tensor (`ModuleTransform` of learn2learn)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxmeta._checks import check_function
from jaxmeta._learned import Learned
from jaxmeta._types import PyTree
from jaxmeta.display import described, short_repr


class ModuleState(NamedTuple):
    """State of `scale_by_module`."""

    variables: Learned
    """A tree like the parameters, with the variables of a module in place of each of them."""

    __repr__ = short_repr


@described
def scale_by_module(
    make_module: Callable[[tuple[int, ...]], nn.Module], key: jax.Array
) -> optax.GradientTransformation:
    """Maps the gradient of each parameter tensor to its update by a Flax Linen module of its own.

    The initial modules are the initial transformation. To start as the identity, give them a suitable initializer, or
    let them return `gradient + network(gradient)` with the last kernel at zero. To treat some tensors in another way,
    use `optax.partition` with labels by path (second example).

    Args:
        make_module: function from the shape of a tensor to its module. The module maps the gradient to an array of the
            same shape. It may flatten the gradient, or treat its entries as a batch.
        key: random key of the initial parameters of the modules, folded with the index of each tensor. They get the
            dtype of the tensor.

    Returns:
        A transformation whose state holds the parameters of the modules as `Learned`.

    Raises:
        TypeError: if `make_module` is not a function. From `init`, if it does not return a Linen module.
        ValueError: from `init`, if a module changes the shape of the gradient or has variables other than parameters.

    Example:
        >>> class Scale(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, gradient):
        ...         return self.param("scale", nn.initializers.ones, gradient.shape) * gradient
        >>> inner = optax.chain(scale_by_module(lambda shape: Scale(), jax.random.key(0)), optax.sgd(0.5))
        >>> params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
        >>> inner.update(params, inner.init(params))[0]["bias"].tolist()
        [-0.5, -0.5]

        A network on flat gradients for the biases, nothing learned for the rest:

        >>> def by_path(params):
        ...     name = lambda path, _: "bias" if path[-1].key == "bias" else "rest"
        ...     return jax.tree.map_with_path(name, params)
        >>> dense = scale_by_module(lambda shape: nn.Dense(shape[-1]), jax.random.key(0))
        >>> inner = optax.partition({"bias": dense, "rest": optax.identity()}, by_path)
        >>> inner.update(params, inner.init(params))[0]["kernel"].tolist()
        [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    check_function(make_module=make_module)
    if isinstance(make_module, nn.Module):
        raise TypeError(f"make_module must return a module for a shape, got the module {make_module!r}")

    def init(params: PyTree) -> Any:
        leaves, structure = jax.tree.flatten(params)
        variables = [_init(make_module, jax.random.fold_in(key, i), leaf) for i, leaf in enumerate(leaves)]
        return ModuleState(Learned(structure.unflatten(variables)))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params

        def apply(grad: jax.Array, variables: PyTree) -> jax.Array:
            out: Any = make_module(grad.shape).apply(variables, grad)
            return out.astype(grad.dtype)

        return jax.tree.map(apply, updates, state.variables.value), state

    return optax.GradientTransformation(init, update)


def _init(make_module: Callable[[tuple[int, ...]], nn.Module], key: jax.Array, param: jax.Array) -> PyTree:
    """Draws the variables of one tensor's module, and raises unless it is a module that keeps the shape."""
    shape, dtype = jnp.shape(param), jnp.result_type(param)
    module = make_module(shape)
    if not isinstance(module, nn.Module):
        raise TypeError(f"make_module must return a flax.linen.Module, got {module!r} for shape {shape}")
    out, variables = module.init_with_output(key, jnp.zeros(shape, dtype))
    if jnp.shape(out) != shape:
        raise ValueError(
            f"make_module must return a module that keeps the shape of the gradient, got {type(module).__name__}, "
            f"which maps {shape} to {jnp.shape(out)}"
        )
    if set(variables) - {"params"}:
        raise ValueError(
            f"make_module must return a module with parameters only, got {type(module).__name__} with the collections "
            f"{', '.join(map(repr, sorted(variables)))}"
        )
    return jax.tree.map(lambda leaf: leaf.astype(dtype), variables)
