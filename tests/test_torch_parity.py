"""Meta-gradients in float64 against another implementation: torch's autograd, written out loop by loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta import Batch, Task, models, optim

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

RATE = 0.1
KEY = jax.random.key(0)
MODEL = models.OmniglotCNN(ways=3, hidden=4, layers=2)


def convolution(p, x):
    """3x3, stride 2, padded as XLA's SAME pads: the odd row or column goes last."""
    total = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in x.shape[2:]]
    (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in total)
    x = torch.nn.functional.pad(x, (left, right, top, bottom))
    return torch.nn.functional.conv2d(x, p["kernel"].permute(3, 2, 0, 1), p["bias"], stride=2)


def batch_norm(p, x):
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    x = (x - mean) / torch.sqrt(variance + 1e-5)
    return x * p["scale"][:, None, None] + p["bias"][:, None, None]


def torch_loss(params, batch):
    body, head = params["params"]["body"], params["params"]["head"]
    x = batch.x.permute(0, 3, 1, 2)
    for i in range(2):
        x = torch.relu(batch_norm(body[f"norm_{i}"], convolution(body[f"conv_{i}"], x)))
    logits = x.mean((2, 3)) @ head["kernel"] + head["bias"]
    log_probabilities = logits - torch.logsumexp(logits, 1, keepdim=True)
    return -log_probabilities[torch.arange(len(batch.y)), batch.y].mean()


def sgd_update(grad, _):
    return -RATE * grad


def meta_sgd_update(grad, rate):
    return -rate * grad


def curvature_update(grad, m):
    if grad.ndim == 1:
        return -RATE * m.m_o * grad
    if grad.ndim == 2:
        return -RATE * m.m_i @ grad @ m.m_o.T
    by_position = grad.reshape(9, *grad.shape[2:])
    return -RATE * torch.einsum("fg,ij,op,gjp->fio", m.m_f, m.m_i, m.m_o, by_position).reshape(grad.shape)


def kronecker_update(grad, layers):
    """Each matrix, its rows one after the other, times the whole matrix `kron(L, R)`."""
    ((left, right),) = layers
    outputs = grad.reshape(9, *grad.shape[2:]).permute(2, 0, 1) if grad.ndim == 4 else grad[None]
    rows = outputs.reshape(len(outputs), -1) @ torch.kron(left.contiguous(), right.contiguous()).T
    if grad.ndim == 4:
        return -RATE * rows.reshape(outputs.shape).permute(1, 2, 0).reshape(grad.shape)
    return -RATE * rows[0].reshape(grad.shape)


ALGORITHMS = {
    "maml": (optax.sgd(RATE), sgd_update),
    "meta-sgd": (optim.scale_by_learned_rate(RATE), meta_sgd_update),
    "meta-curvature": (optax.chain(optim.scale_by_curvature(), optax.sgd(RATE)), curvature_update),
    "kfo": (optax.chain(optim.scale_by_kronecker(), optax.sgd(RATE)), kronecker_update),
}


def torch_meta_gradient(update, params, learned, task, steps):
    """The query loss after `steps` inner steps, and its gradient. `learned` has one entry per parameter tensor."""
    leaves, structure = jax.tree.flatten(params)
    adapted = leaves
    for _ in range(steps):
        loss = torch_loss(structure.unflatten(adapted), task.support)
        grads = torch.autograd.grad(loss, adapted, create_graph=True)
        adapted = [p + update(g, own) for p, g, own in zip(adapted, grads, learned, strict=True)]
    loss = torch_loss(structure.unflatten(adapted), task.query)
    grads = torch.autograd.grad(loss, [*leaves, *jax.tree.leaves(learned)])
    return loss.detach().numpy(), [g.numpy() for g in grads]


def draw(shape, rng):
    return jnp.asarray(rng.normal(size=shape))


@pytest.mark.parametrize(
    ("name", "steps"), [("maml", 1), ("maml", 5), ("meta-sgd", 2), ("meta-curvature", 2), ("kfo", 2)]
)
@pytest.mark.quick("maml-1", "kfo-2")
def test_meta_gradient_equals_torch(name, steps):
    inner, update = ALGORITHMS[name]
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        labels = jnp.arange(6) % 3
        task = Task(Batch(draw((6, 9, 8, 1), rng), labels), Batch(draw((6, 9, 8, 1), rng), labels))
        params = MODEL.init(KEY, task.support.x)
        params = jax.tree.map(lambda p: p + 0.1 * draw(p.shape, rng), params)
        learner = jaxmeta.maml(jaxmeta.classification(MODEL.apply), inner, steps)
        meta = learner.init(params)
        # Away from the start, where a transposed factor would go unseen.
        meta = meta._replace(learned=jax.tree.map(lambda x: x + 0.05 * draw(x.shape, rng), meta.learned))
        metrics, grads = jax.jit(learner.grad)(meta, task, KEY)

    to_torch = lambda x: torch.tensor(np.asarray(x))  # noqa: E731
    own = [node.value for node in jax.tree.leaves(meta.learned, is_leaf=lambda x: isinstance(x, jaxmeta.Learned))]
    leaves, structure = jax.tree.flatten(params)
    by_tensor = structure.flatten_up_to(own[0]) if own else [()] * len(leaves)
    torch_params, torch_learned, torch_task = jax.tree.map(to_torch, (params, by_tensor, task))
    for leaf in jax.tree.leaves((torch_params, torch_learned)):
        leaf.requires_grad_()
    loss, expected = torch_meta_gradient(update, torch_params, torch_learned, torch_task, steps)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-10)
    ours = jax.tree.leaves(grads)
    assert len(ours) == len(expected)
    norm = np.sqrt(sum(np.sum(e**2) for e in expected))
    difference = np.sqrt(sum(np.sum((np.asarray(a) - e) ** 2) for a, e in zip(ours, expected, strict=True)))
    assert {g.dtype for g in ours} == {jnp.dtype(jnp.float64)}
    assert difference < 1e-9 * norm, difference / norm
