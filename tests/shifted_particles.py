"""An environment for tests of normalization."""

import dataclasses
from typing import Any

from jaxmeta import envs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shifted(envs.Particles2D):
    """Particle whose position is seen in other units, as those of a humanoid's forces."""

    def begin(self, key, task):
        state, obs = super().begin(key, task)
        return state, 140 * obs + 60

    def move(self, pipeline_state, action, task):
        outcome: Any = super().move(pipeline_state, action, task)
        return outcome.replace(obs=140 * outcome.obs + 60)
