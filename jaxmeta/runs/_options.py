"""The options of a run, each declared once."""

import dataclasses

from jaxmeta.catalog import CLASSES, TASKS, Same, option, options_of


@dataclasses.dataclass(frozen=True)
class Options:
    """Every option that decides the result of a run. `None` is the default of the learner, the model and so on."""

    benchmark: str | None = option("Benchmark or environment; `jaxmeta list` shows all.", "tasks", default="glyphs")
    learner: str | None = option(
        "Meta-learning algorithm; `jaxmeta list` shows all.",
        "learner",
        default={**dict.fromkeys(TASKS, "maml"), "vectors": "protonet", "environment": "promp"},
        known_as=("algorithm", "algo", "method"),
    )
    ways: int | None = option(
        "Classes per task.",
        "tasks",
        default=5,
        kinds=CLASSES,
        least=2,
        known_as=("n-way", "way", "test-ways"),
    )
    train_ways: int | None = option(
        "Classes per task in meta-training, all training classes if there are fewer.", "tasks", least=2
    )
    shots: int | None = option(
        "Labeled examples to adapt on: per class, in regression per task.",
        "tasks",
        default={**dict.fromkeys(CLASSES, 1), "regression": 10},
        known_as=("k-shot", "shot"),
    )
    train_shots: int | None = option("The same in meta-training.", "tasks", default=dict.fromkeys(TASKS, Same("shots")))
    queries: int | None = option(
        "Query examples in meta-training: per class, in regression per task.",
        "tasks",
        default={**dict.fromkeys(CLASSES, 1), "regression": 10},
        known_as=("query",),
    )
    test_queries: int | None = option(
        "Query examples at validation and test. With batch norm the number matters: the network sees a query set as a "
        "whole (it is transductive).",
        "tasks",
        default=dict.fromkeys(TASKS, Same("queries")),
    )
    test_rotations: bool | None = option(
        "Rotated characters are classes of their own at validation and test too, as in ProtoNets' paper.", "tasks"
    )
    split: str | None = option(
        "Division of the classes into training, validation and test. `auto`: as the folders `train` and `test` do, if "
        "there are any, else at random.",
        "tasks",
    )
    split_seed: int | None = option("Seed of `--split random`.", "tasks", least=0)
    size: int | None = option(
        "Height and width of images in pixels, or length of the vectors of sentences. 0: as in the benchmark or the "
        "files.",
        "tasks",
        least=0,
        known_as=("image-size", "img-size", "resize"),
    )
    channels: int | None = option("Channels of images: 1 for gray, 3 for RGB. 0: as in the files.", "tasks", least=0)
    invert: bool | None = option("Exchange dark and light in images: Omniglot has white ink on black.", "tasks")
    augment: str | None = option(
        "Augmentation of the images of training tasks: random crops, with flips, with changes of color.",
        "tasks",
        choices=("none", "crop", "flip", "color"),
    )
    per_class: int | None = option("Examples of each class to read, the first ones. 0: all.", "tasks", least=0)
    min_per_class: int | None = option("Leave out the classes with fewer examples.", "tasks", least=0)
    base_classes: int | None = option(
        "Classes to pre-train on, for benchmarks that draw classes without end.", "tasks", known_as=("classes",)
    )
    variant: str | None = option("Paper whose environment is used, where definitions differ.", "environment")
    horizon: int | None = option("Steps per episode.", "environment", known_as=("episode-length", "max-steps"))
    backend: str | None = option("Physics engine of brax, for environments with a body.", "environment")
    action_scale: float | None = option(
        "Factor of actions that are not discrete, before the environment clips them. ProMP's paper divides by ten.",
        "environment",
        default={"environment": 1.0},
    )
    episodes: int | None = option(
        "Episodes per task before each inner step and after the last one. "
        "With rl2: of a trial. With pearl: per update.",
        "environment",
    )
    model: str | None = option(
        "Network; `jaxmeta list` shows all.",
        "model",
        default={"images": "cnn", "text": "skip-linear", "vectors": "identity", "regression": "mlp"},
        known_as=("network", "backbone", "arch"),
    )
    norm: str | None = option(
        "Normalization. `batch` uses the statistics of the batch at hand, at test too, so it is transductive.",
        "model",
        choices=("batch", "group", "layer", "none"),
    )
    hidden: int | None = option(
        "Width: channels of a convolutional network, units of a hidden layer, size of a policy's two layers or memory.",
        "model",
        default={"environment": 64},
        known_as=("width", "filters"),
    )
    memory: str | None = option(
        "Memory of a recurrent policy.", "model", choices=("gru", "lstm", "linear", "transformer"), known_as=("rnn",)
    )
    init_std: float | None = option(
        "Initial standard deviation of actions that are not discrete.", "model", known_as=("init-log-std",)
    )
    drop_rate: float | None = option("Dropout rate in training.", "model", least=0, known_as=("dropout",))
    patch: int | None = option("Height and width of the patches that become tokens.", "model")
    dtype: str | None = option(
        "Number type in which the model computes. Parameters, losses and normalization stay float32.",
        "model",
        default="float32",
        kinds=TASKS,
        choices=("float32", "bfloat16"),
    )
    steps: int | None = option(
        "Inner steps in meta-training.", "learner", known_as=("inner-steps", "adaptation-steps", "num-steps")
    )
    test_steps: int | None = option("Inner steps at validation and test.", "learner", least=0)
    inner_rate: float | None = option(
        "Inner learning rate. With meta-sgd: where the learned rates start.",
        "learner",
        known_as=("lr", "inner-lr", "fast-lr", "adapt-lr", "learning-rate"),
    )
    head_rate: float | None = option("Learning rate of the weights after the codes.", "learner")
    context_size: int | None = option(
        "Context parameters per task, which alone adapt (CAVIA). In an environment 0 adapts all parameters.",
        "learner",
        least=0,
    )
    learned_rates: bool | None = option("Learn a rate of the inner steps for each parameter (Meta-SGD).", "learner")
    surrogate: str | None = option(
        "Surrogate of the inner loss of policies, which decides the derivative of its gradient.",
        "learner",
        choices=("ratio", "reinforce", "dice"),
    )
    proximal: float | None = option("Strength of the pull to the initial parameters.", "learner")
    inner_batch: int | None = option("Examples per inner step in meta-training.", "learner")
    test_inner_batch: int | None = option("Examples per inner step at validation and test.", "learner")
    fine_tune: bool | None = option("Train the whole network on a task, not the classifier alone.", "learner")
    layers: int | None = option("Layers of the learned transformation of gradients.", "learner")
    latents: int | None = option("Length of the codes.", "learner")
    bars: int | None = option("Bars of the predicted densities, equally probable in training.", "learner", least=2)
    meta_gradient: str | None = option(
        "Way to compute the meta-gradient; `jaxmeta list` shows all.", "learner", known_as=("first-order",)
    )
    remat: bool | None = option(
        "Recompute inner steps in the backward pass instead of storing them: less memory, more time.", "learner"
    )
    last_steps: int | None = option("Number of last inner steps to differentiate through.", "learner")
    solver_steps: int | None = option("Iterations of conjugate gradients.", "learner")
    samples: int | None = option("Perturbations per task.", "learner")
    noise: float | None = option("Standard deviation of the perturbations.", "learner")
    discount: float | None = option("Discount of rewards per step, at most 1.", "learner", least=0, known_as=("gamma",))
    trace_decay: float | None = option(
        "Trace decay of generalized advantage estimation, at most 1.",
        "learner",
        least=0,
        known_as=("tau", "gae-lambda"),
    )
    entropy_weight: float | None = option(
        "Weight of the policy's entropy in the loss.", "learner", least=0, known_as=("entropy-coef",)
    )
    kl_penalty: float | None = option(
        "Weight of the divergence from the policy that played.", "learner", least=0, known_as=("kl-coef", "eta")
    )
    baseline: str | None = option(
        "What a return is compared with: a linear fit to the task's own episodes, a value network, or nothing.",
        "learner",
        choices=("linear", "value", "none"),
    )
    normalize: bool | None = option(
        "Give policies observations of mean 0 and variance 1 by running statistics, and scale the rewards of rl2.",
        "learner",
    )
    iterations: int | None = option(
        "Outer updates.",
        "outer loop",
        default={**dict.fromkeys(TASKS, 2000), "regression": 20_000, "environment": 200},
        known_as=("epochs", "updates", "num-iterations", "max-steps", "meta-iterations"),
    )
    num_tasks: int | None = option(
        "Tasks per outer update.", "outer loop", known_as=("meta-batch-size", "meta-bsz", "tasks-per-batch")
    )
    minibatch: int | None = option("Examples per minibatch of pre-training.", "outer loop")
    pretraining: int | None = option("Minibatches of pre-training before the meta-training.", "outer loop")
    outer_rate: float | None = option(
        "Outer learning rate of Adam. With reptile: of plain steps towards the adapted parameters. With maml-trpo and "
        "e-maml: largest divergence of an update in nats.",
        "outer loop",
        known_as=("meta-lr", "outer-lr"),
    )
    outer_schedule: str | None = option(
        "Schedule of the outer rate over the run: constant, or a decay to 0.",
        "outer loop",
        choices=("constant", "linear", "cosine"),
    )
    clip: float | None = option(
        "Largest norm of a meta-gradient; larger ones are scaled down to it. 0 clips nothing.",
        "outer loop",
        default=dict.fromkeys(TASKS, 0.0),
        least=0,
    )
    skip_nonfinite: bool | None = option(
        "Skip an outer update that is not finite, instead of stopping.", "outer loop", default=False
    )
    batch_size: int | None = option(
        "Tasks computed at once. It changes the speed, not the result. 0 chooses what suits the device.",
        "outer loop",
        default=0,
        kinds=TASKS,
        least=0,
    )
    validate_every: int | None = option(
        "Outer updates between validations.", "run", default={**dict.fromkeys(TASKS, 500), "environment": 50}
    )
    validation_tasks: int | None = option(
        "Tasks per validation, the same ones every time.",
        "run",
        default={**dict.fromkeys(TASKS, 200), "environment": 40},
    )
    test_tasks: int | None = option(
        "Tasks of the final test.",
        "run",
        default={**dict.fromkeys(TASKS, 600), "environment": 100},
        known_as=("num-test-tasks", "episodes-test"),
    )
    precision: str | None = option(
        "Precision of matrix products, as JAX names it. `default` is fast: TF32 on new GPUs, bfloat16 on TPUs. "
        "`highest` is float32. A CPU computes in float32 whatever it says.",
        "run",
        default="default",
        choices=("default", "tensorfloat32", "highest", "bfloat16"),
    )
    seed: int | None = option("Seed of everything random.", "run", default=0, least=0)


OPTIONS = options_of(Options)
