"""Meta-reinforcement learning: rollouts, adaptation and the outer update in one XLA program."""
