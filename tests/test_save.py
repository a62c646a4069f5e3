"""`save` and `load`: every container, every dtype, and clear errors for what is not a file of ours."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxmeta
from jaxmeta import MetaParams, optim

TREE = {
    "bfloat16": jnp.array([1.5, 2.0], jnp.bfloat16),
    "list": [jnp.arange(3), (np.float64(2.0), None)],
    "empty": jnp.zeros((0, 3)),
}


def test_round_trip(tmp_path):
    jaxmeta.save(tmp_path / "x", TREE)
    back = jaxmeta.load(tmp_path / "x", TREE)
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, back, TREE)
    assert [x.dtype for x in jax.tree.leaves(back)] == [x.dtype for x in jax.tree.leaves(TREE)]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_random_keys(tmp_path, impl):
    keys = {
        "key": jax.random.key(3, impl=impl),
        "stream": nnx.State({"k": nnx.RngKey(jax.random.key(4), tag="dropout")}),
    }
    jaxmeta.save(tmp_path / "x", keys)
    for back in (jaxmeta.load(tmp_path / "x", keys), jaxmeta.load(tmp_path / "x")):
        for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(keys), strict=True):
            assert a.dtype == b.dtype and np.array_equal(jax.random.key_data(a), jax.random.key_data(b))
    with pytest.raises(ValueError, match=r"\['key'\] is key<\w+>\[\], expected uint32\[2\]"):
        jaxmeta.load(tmp_path / "x", {**keys, "key": np.zeros(2, np.uint32)})


def test_meta_parameters_of_a_learner(tmp_path):
    """By `jax.eval_shape`, without computing anything."""
    inner = optax.chain(optim.scale_by_kronecker(), optim.scale_by_learned_rate(0.1), optax.trace(0.9))
    learner = jaxmeta.maml(jaxmeta.regression(lambda w, x: x @ w), inner)
    meta = learner.init(jnp.ones((2, 1)))
    jaxmeta.save(tmp_path / "meta", meta)
    back = jaxmeta.load(tmp_path / "meta", jax.eval_shape(learner.init, jnp.ones((2, 1))))
    assert isinstance(back, MetaParams)
    jax.tree.map(np.testing.assert_array_equal, back, meta)


def test_without_like_every_container_is_a_dict(tmp_path):
    jaxmeta.save(tmp_path / "x", MetaParams({"w": jnp.ones(2)}, [jnp.zeros(1)]))
    back = jaxmeta.load(tmp_path / "x")
    assert sorted(back) == ["learned", "params", "state"] and sorted(back["learned"]) == ["0"]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": np.ones(3, np.float32)}, r"\['w'\] is float32\[2\], expected float32\[3\]"),
        ({"w": np.ones(2, np.int32)}, r"\['w'\] is float32\[2\], expected int32\[2\]"),
        ({"v": np.ones(2, np.float32)}, r"\['v'\] is missing; \['w'\] is not expected"),
        ([np.ones(2, np.float32)], r"\['0'\] is missing"),
    ],
)
def test_another_tree_is_refused(tmp_path, like, message):
    jaxmeta.save(tmp_path / "x", {"w": jnp.ones(2)})
    with pytest.raises(ValueError, match=message):
        jaxmeta.load(tmp_path / "x", like)


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"\x80\x04pickle", lambda data: b""])
def test_damaged_file(tmp_path, damage):
    jaxmeta.save(tmp_path / "x", {"w": jnp.ones(2)})
    (tmp_path / "x").write_bytes(damage((tmp_path / "x").read_bytes()))
    with pytest.raises(ValueError, match="x is damaged, or was not made by jaxmeta.save"):
        jaxmeta.load(tmp_path / "x")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        jaxmeta.load(tmp_path / "none")


def test_another_order_of_bytes(tmp_path):
    jaxmeta.save(tmp_path / "x", [np.arange(3, dtype=">f4"), np.arange(3, dtype=">i8")[1:]])
    back = jaxmeta.load(tmp_path / "x")
    assert back["0"].tolist() == [0, 1, 2] and back["1"].tolist() == [1, 2]


STRANGE = {
    "text": "text",
    "object": object(),
    "texts": np.array(["a"]),
    "times": np.zeros(1, "M8[s]"),
    "long": 2**64,
    "masked": np.ma.array([1.0], mask=[True]),
}


@pytest.mark.parametrize("leaf", STRANGE.values(), ids=STRANGE)
def test_what_is_no_array_is_refused(tmp_path, leaf):
    with pytest.raises(TypeError, match=r"tree must hold arrays and numbers, got \w+.* at \['a'\]"):
        jaxmeta.save(tmp_path / "x", {"a": leaf})
    assert not list(tmp_path.iterdir())
