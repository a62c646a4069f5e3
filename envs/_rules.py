"""Rule sets: which kinds of objects make which, as arrays of integers that are drawn on the device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._types import PyTree


def is_held_out(objects: jax.Array) -> jax.Array:
    """Returns whether a set of objects, kinds `[objects]`, is one of the fifth that split `"train"` never has."""
    return jnp.sum(objects) % 5 == 2


def product_of(rules: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the kind that two kinds make under `rules: [R, 3]`, in either order, or -1."""
    one = (rules[:, 0] == first) & (rules[:, 1] == second)
    other = (rules[:, 0] == second) & (rules[:, 1] == first)
    return jnp.max(jnp.where(one | other, rules[:, 2], -1), initial=-1)


@dataclasses.dataclass(frozen=True)
class RuleSets:
    """Distribution of rule sets.

    A rule set is `{"objects": [objects], "rules": [depth + distractors, 3], "goal": []}`. A row of the rules is two
    kinds and their product. The first `depth` rows lead from objects to the goal. Each of the others makes something
    useless from two objects.

    Args:
        kinds: number of kinds.
        objects: number of objects, which are all of different kinds.
        depth: number of rules that lead to the goal; 0 if the goal is one of the objects.
        distractors: number of other rules.
    """

    kinds: int
    objects: int
    depth: int
    distractors: int

    def check(self) -> None:
        """Raises ValueError if there are no such rule sets, or all of them are in one split."""
        if not self.depth < self.objects:
            raise ValueError(f"depth must be less than objects ({self.objects}), got {self.depth}")
        free = len(self._pairs()) - min(self.depth, 1)
        if self.distractors > free:
            raise ValueError(f"distractors must be at most {free} for {self.objects} objects, got {self.distractors}")
        needed = self.objects + max(2, self.depth + min(self.distractors, 1))
        if self.kinds < needed:
            raise ValueError(f"colors * shapes must be at least {needed} for such rules, got {self.kinds}")

    def draw(self, key: jax.Array, split: str) -> PyTree:
        """Draws a rule set of a split. No set of objects occurs in both splits."""

        def wrong(carry: tuple[jax.Array, PyTree]) -> jax.Array:
            return is_held_out(carry[1]["objects"]) != (split == "test")

        def again(carry: tuple[jax.Array, PyTree]) -> tuple[jax.Array, PyTree]:
            key, draw_key = jax.random.split(carry[0])
            return key, self._candidate(draw_key)

        return jax.lax.while_loop(wrong, again, again((key, None)))[1]

    def _pairs(self) -> np.ndarray:
        """Returns all pairs of the objects' numbers, `[pairs, 2]`, beginning with 0 and 1."""
        return np.argwhere(np.triu(np.ones((self.objects, self.objects)), 1))

    def _candidate(self, key: jax.Array) -> PyTree:
        """Draws a rule set of either split."""
        kind_key, pair_key, order_key = jax.random.split(key, 3)
        kinds = jax.random.permutation(kind_key, self.kinds)
        objects, products, useless = jnp.split(kinds, [self.objects, self.objects + self.depth])
        # A chain: objects 0 and 1 make product 0, product 0 and object 2 make product 1, and so on.
        chain = jnp.stack(
            [jnp.concatenate([objects[:1], products])[: self.depth], objects[1 : self.depth + 1], products], axis=-1
        )
        first = min(self.depth, 1)
        others = jax.random.permutation(pair_key, jnp.asarray(self._pairs())[first:])[: self.distractors]
        wasted = useless[jnp.arange(self.distractors) % len(useless)]
        rules = jnp.concatenate([chain, jnp.column_stack([objects[others], wasted])])
        goal = products[-1] if self.depth else objects[0]
        return {"objects": jax.random.permutation(order_key, objects), "rules": rules, "goal": goal}
