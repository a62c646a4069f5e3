"""Names and arguments of other libraries, mostly of learn2learn, and what stands in their place here."""

ARGUMENTS = {
    "lr": "the rate is that of the inner optimizer, such as optax.sgd(lr), or inner_rate",
    "inner_lr": "the rate is that of the inner optimizer, such as optax.sgd(inner_lr), or inner_rate",
    "first_order": "write meta_gradient=jaxmeta.first_order()",
    "second_order": "write meta_gradient=jaxmeta.reverse() or first_order()",
    "adapt_steps": "write steps=",
    "adaptation_steps": "write steps=",
    "num_steps": "write steps=",
    "inner_steps": "write steps=",
    "num_inner_steps": "write steps=",
    "allow_unused": "it is not needed, as the gradient of an unused parameter is zero",
    "allow_nograd": "it is not needed, as optax.partition freezes parameters",
    "model": "write jaxmeta.classification(model) or regression(model) for the loss, or features_fn",
    "n_way": "write ways=",
    "num_ways": "write ways=",
    "loss": "write loss_fn=",
}
"""Replacements of arguments that a factory does not have."""

_UNNEEDED = "it is not needed, because values are never changed in place"
NAMES = {
    "MAML": "write maml(loss_fn, optax.sgd(rate)), where loss_fn is jaxmeta.classification(model)",
    "MetaSGD": "write meta_sgd(loss_fn, inner_rate)",
    "GBML": "write maml(loss_fn, inner), where inner is the transformation",
    "ANIL": "write anil(loss_fn, inner)",
    "ProtoNet": "write protonet(model, ways)",
    "PrototypicalNetworks": "write protonet(model, ways)",
    "clone_module": _UNNEEDED,
    "clone_parameters": _UNNEEDED,
    "detach_module": "write jax.lax.stop_gradient(params)",
    "update_module": "write optax.apply_updates(params, updates)",
    "DifferentiableSGD": "write optax.sgd(rate), as every optax transformation is differentiable",
    "SGD": "write optax.sgd(rate)",
    "Adam": "write optax.adam(rate)",
    "LearnableOptimizer": "write jaxmeta.optim.adaptive(transform, optimizer)",
    "ParameterUpdate": "write inner.update(grads, state, params)",
    "ModuleTransform": "write jaxmeta.optim.scale_by_module(make_module, key)",
    "MetaCurvatureTransform": "write jaxmeta.optim.scale_by_curvature()",
    "KroneckerTransform": "write jaxmeta.optim.scale_by_kronecker()",
    "vision": "data are in jaxmeta.data, as data.get_tasksets(name), and networks in jaxmeta.models",
    "text": "data are in jaxmeta.data, as data.get_tasksets('clinc150')",
    "gym": "environments are in jaxmeta.envs, and algorithms in jaxmeta.rl",
    "nn": "layers are in jaxmeta.models",
    "utils": "accuracy is among the metrics of jaxmeta.classification",
    "accuracy": "it is among the metrics of jaxmeta.classification(model)",
    "transforms": "they are in jaxmeta.data itself, as data.NWays(5)",
    "benchmarks": "they are in jaxmeta.data, as data.get_tasksets(name)",
    "innerloop_ctx": "write jaxmeta.unroll(loss_fn, inner, params, batch, keys), or jaxmeta.adapt",
}
"""Replacements of names that a module does not have."""

METHODS = {
    "clone": _UNNEEDED + ": learner.adapt(meta, support, key) returns the parameters of a task",
    "parameters": "meta = learner.init(params) holds them",
    "forward": "write learner.predict(adapted, x)",
    "apply": "write learner.predict(adapted, x)",
    "fit": "write jaxmeta.train(learner, optimizer, meta, tasks, key, ...)",
    "train": "write jaxmeta.train(learner, optimizer, meta, tasks, key, ...)",
    "step": "jaxmeta.meta_step(learner, optimizer, num_tasks) has it",
    "update": "jaxmeta.meta_step(learner, optimizer, num_tasks) has it",
    "eval": "write jaxmeta.evaluate(learner, num_tasks)",
    "evaluate": "write jaxmeta.evaluate(learner, num_tasks)",
}
"""Replacements of methods that a learner does not have."""

_DRAW = "a task is drawn by a call with a key, as sampler(jax.random.key(0))"
SAMPLING: dict[str, str] = dict.fromkeys(("sample", "sample_task", "sample_tasks", "batch", "get_batch"), _DRAW)
"""Replacements of methods that a sampler does not have."""
