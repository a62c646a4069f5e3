"""A classifier of small tables by a prior-fitted network, in the manner of scikit-learn."""

import os
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta._checks import as_path, check_integer, check_number
from jaxmeta._save import read_tree, write_tree
from jaxmeta._types import PyTree
from jaxmeta.algorithms import ContextTransformer
from jaxmeta.data.containers import Columns, table_inputs
from jaxmeta.display import brief
from jaxmeta.prediction._table_columns import class_numbers, table_values

_AT_ONCE = 256  # rows per call
_KIND = "prior-fitted"
_SIZES = ("out", "width", "layers", "heads")


class PriorFittedClassifier:
    """A classifier of tables with few rows, which does not train: a network reads the labeled rows and predicts.

    The network is a `ContextTransformer` that was trained on random tables (`data.TablePrior`), as
    `experiments/prior_fitted_tables.py` does, which also saves the classifier for `load`. `fit` keeps the rows, and
    `predict_proba` is a forward pass over them and the new rows.

    The columns are numbers. Missing values are NaN: the network sees the mean of the column in their place, and a flag.
    Columns of categories are numbers of the categories, in any order. The predictions are averages over members of an
    ensemble, which see the columns and number the classes in different orders, because the network knows them by their
    positions.

    The methods and the attributes `classes_` and `n_features_in_` are those of scikit-learn, which is not needed:
    `sklearn.model_selection.cross_val_score(classifier, X, y)` and pipelines take the classifier as one of their own.

    Attributes:
        network: the network, with an output for each class. Its inputs are those of `data.TablePrior`.
        variables: its parameters, as `network.init` makes them.
        features: the most columns of a table.
        rows: the most labeled rows.
        ensemble: number of members (default: 8).
        seed: seed of their orders (default: 0).

    Example:
        >>> network = ContextTransformer(out=3, width=8, layers=1, heads=2)
        >>> variables = network.init(jax.random.key(0), jnp.zeros((1, 2 * 4)))
        >>> classifier = PriorFittedClassifier(network, variables, features=4, rows=20)
        >>> classifier.fit([[0.0, 1.0], [1.0, np.nan], [2.0, 0.0]], ["low", "low", "high"]).classes_.tolist()
        ['high', 'low']
        >>> classifier.predict_proba([[3.0, 0.0]]).shape
        (1, 2)

    References:
        Hollmann, Müller, Eggensperger & Hutter, *TabPFN: A Transformer That Solves Small Tabular Classification
        Problems in a Second*, ICLR 2023, https://arxiv.org/abs/2207.01848
    """

    classes_: np.ndarray
    n_features_in_: int

    def __init__(
        self,
        network: ContextTransformer,
        variables: PyTree,
        *,
        features: int,
        rows: int,
        ensemble: int = 8,
        seed: int = 0,
    ):
        """See the class. Arguments are checked by `fit`, as in scikit-learn."""
        self.network, self.variables = network, variables
        self.features, self.rows, self.ensemble, self.seed = features, rows, ensemble, seed

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, ensemble: int = 8, seed: int = 0) -> Self:
        """Loads what `save` saved.

        Args:
            path: path of the file.
            ensemble: see the class.
            seed: see the class.

        Returns:
            A classifier that has seen no rows.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a byte of the file has changed, or it was not made by `save` of this version.
        """
        path = as_path(path=path)
        stored = read_tree(path, _KIND, "jaxmeta.PriorFittedClassifier.save")
        try:
            sizes = {name: int(stored["sizes"][name]) for name in (*_SIZES, "features", "rows")}
            out, width, layers, heads = (sizes[name] for name in _SIZES)
            network = ContextTransformer(out, width, layers, heads)
            features, rows = check_integer(features=sizes["features"], rows=sizes["rows"])
            variables = stored["variables"]
            wanted = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 2 * features)))
            if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, wanted):
                raise ValueError("the arrays are not those of its network")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is damaged, or was not made by this version of jaxmeta ({error})") from error
        return cls(network, variables, features=features, rows=rows, ensemble=ensemble, seed=seed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the network and its limits as one file for `load`, without rows of a table.

        Args:
            path: path of the file. Its folder must exist.

        Raises:
            ValueError: if the network has a backbone, which the file does not hold.
        """
        if self.network.backbone is not None:
            raise ValueError(f"network must have no backbone to be saved, got {brief(self.network.backbone)}")
        sizes = {name: getattr(self.network, name) for name in _SIZES} | {"features": self.features, "rows": self.rows}
        write_tree(as_path(path=path), {"sizes": sizes, "variables": self.variables}, _KIND)

    def fit(self, X: Any, y: Any) -> Self:
        """Keeps labeled rows.

        Args:
            X: rows `[n, d]`: an array, a frame of numbers or a list of lists, NaN where a value is missing.
            y: class of each row, numbers or strings: `[n]`.

        Returns:
            The classifier itself.

        Raises:
            TypeError: if a value of `X` is no number, or `y` has numbers and strings.
            ValueError: if there are more rows, columns or classes than the network takes, only one class, an infinite
                value, a missing class, or `X` and `y` do not match.
        """
        features, rows = check_integer(features=self.features, rows=self.rows)
        check_integer(ensemble=self.ensemble)
        check_number(seed=self.seed)
        values = table_values(X)
        classes, numbers = class_numbers(y)
        if len(numbers) != len(values):
            raise ValueError(f"y must have a class for each row of X: got {len(numbers)} for {len(values)} rows")
        for name, count, most in (
            ("rows", len(values), rows),
            ("columns", values.shape[1], features),
            ("classes", len(classes), self.network.out),
        ):
            if count > most:
                raise ValueError(f"X, y must have at most {most} {name}, for which the network is trained, got {count}")
        if len(classes) < 2:
            raise ValueError(f"y must have at least two classes, got {brief(classes.tolist())}")
        self.classes_, self.n_features_in_ = classes, values.shape[1]
        seen = ~np.isnan(values)
        known = np.where(seen, values, 0.0)
        count = np.maximum(seen.sum(0), 1)
        # In double precision, because a column may be far from 0 for its width. The inputs do not change.
        self._center = known.sum(0) / count
        spread = np.sqrt((np.where(seen, values - self._center, 0.0) ** 2).sum(0) / count)
        self._scale = np.where(spread > 1e-12 * np.abs(self._center), spread, 1.0)
        self._members = self._orders(np.random.default_rng(self.seed))
        size = min(_power_of_two(len(values)), rows)
        table = self._columns(values, size)
        weight = (np.arange(size) < len(values)).astype(np.float32)
        padded = np.concatenate([numbers, np.zeros(size - len(numbers), int)])
        self._context = table, np.argsort(self._members[1], 1)[:, padded].astype(np.int32), weight
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the probability of each class, in the order of `classes_`: `[m, classes]`.

        Args:
            X: rows with the columns of `fit`: `[m, d]`.

        Raises:
            TypeError: if a value is no number.
            ValueError: if `fit` was not called, the number of columns differs, or a value is infinite.
        """
        if not hasattr(self, "classes_"):
            raise ValueError("the classifier has no rows to predict from: call fit(X, y) first")
        values = table_values(X)
        if values.shape[1] != self.n_features_in_:
            raise ValueError(f"X must have {self.n_features_in_} columns, as in fit, got {values.shape[1]}")
        found = [np.zeros((0, self.network.out), np.float32)]
        for start in range(0, len(values), _AT_ONCE):
            some = values[start : start + _AT_ONCE]
            rows = self._columns(some, _power_of_two(len(some)))
            member = self._context, rows, self._members[1], len(self.classes_)
            found.append(np.asarray(_probabilities(self.network, self.variables, *member))[: len(some)])
        return np.concatenate(found)[:, : len(self.classes_)]

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable class of each row: `[m]`. See `predict_proba`."""
        probabilities = self.predict_proba(X)
        return self.classes_[np.argmax(probabilities, 1)]

    def score(self, X: Any, y: Any) -> float:
        """Returns the share of rows whose most probable class is `y`. See `predict_proba`."""
        return float(np.mean(self.predict(X) == np.asarray(y)))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns the arguments of the constructor, for scikit-learn."""
        del deep
        names = ("network", "variables", "features", "rows", "ensemble", "seed")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Self:
        """Changes arguments of the constructor, for the next `fit`.

        Raises:
            ValueError: if there is no such argument.
        """
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(f"params must be among {', '.join(self.get_params())}, got {name!r}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """Tells scikit-learn that this is a classifier that takes missing values. Nothing else calls it."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(allow_nan=True),
        )

    def __repr__(self) -> str:
        """Tells the limits of the network."""
        limits = f"classes={self.network.out}, features={self.features}, rows={self.rows}"
        return f"PriorFittedClassifier({limits}, ensemble={self.ensemble})"

    def _orders(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns the order of the columns `[ensemble, features]` and of the classes `[ensemble, out]` of each member.

        Columns and classes that the table does not have come last, so that one program serves all tables.
        """

        def orders(size: int, most: int) -> np.ndarray:
            rest = np.arange(size, most)
            return np.array([np.concatenate([random.permutation(size), rest]) for _ in range(self.ensemble)])

        return orders(self.n_features_in_, self.features), orders(len(self.classes_), self.network.out)

    def _columns(self, values: np.ndarray, size: int) -> Columns:
        """Returns rows as each member sees them, `[ensemble, size, features]`, padded by rows of unknown values."""
        padded = np.full((size, self.features), np.nan, np.float32)
        padded[: len(values), : values.shape[1]] = (values - self._center) / self._scale
        each = np.stack([padded[:, order] for order in self._members[0]])
        seen = ~np.isnan(each)
        return Columns(jnp.asarray(np.where(seen, each, 0)), jnp.asarray(seen))


@partial(jax.jit, static_argnums=0)
def _probabilities(
    network: ContextTransformer, variables: PyTree, context: Any, rows: Columns, orders: jax.Array, classes: jax.Array
) -> jax.Array:
    """Returns the mean of the members' probabilities, 0 for outputs that are no class: `[m, out]`."""
    table, labels, weight = context

    def member(table: Columns, y: jax.Array, rows: Columns, order: jax.Array) -> jax.Array:
        read: Any = network.apply(variables, table_inputs(table, table, weight), y, weight, method="encode")
        logits: Any = network.apply(variables, read, table_inputs(rows, table, weight), method="decode")
        logits = jnp.where((jnp.arange(network.out) < classes)[None], logits, -jnp.inf)
        return jax.nn.softmax(logits)[:, jnp.argsort(order)]  # the member calls class order[i] by the number i

    return jnp.mean(jax.vmap(member)(table, labels, rows, orders), 0)


def _power_of_two(number: int) -> int:
    """Returns the size to which so many rows are padded, so that few sizes are compiled."""
    return 1 << max(number - 1, 0).bit_length()
