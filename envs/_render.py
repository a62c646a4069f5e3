"""Pictures of episodes: an interactive page that shows a moving body, and videos.

Bodies are made of spheres and capsules. In a parallel projection both are strokes with round ends. They are drawn from
back to front, here with Pillow and on the page with a canvas.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxmeta._checks import check_choice, check_positive
from jaxmeta._files import replacing, write_atomically
from jaxmeta.envs._brax import Physics
from jaxmeta.envs._meta_env import MetaEnv, State
from jaxmeta.envs._page import PAGE

_SPHERE, _CAPSULE = 2, 3  # mujoco.mjtGeom
_AZIMUTH, _ELEVATION = 0.35, 0.25  # of the camera, in radians (at 0 it looks along y)
_MIDDLE, _REACH = 0.6, 1.4  # height of the picture's middle, and half the height that it shows, in meters
_SIZE = 320, 240
_FLOOR = 6  # lines on each side of the body, one meter apart


def save_html(env: MetaEnv, states: State, path: str | os.PathLike[str]) -> None:
    """Saves an episode of a body as a web page that plays it in real time.

    You can drag the picture to turn the camera. The page is one file and needs no network.

    Args:
        env: an environment with a body, such as `HalfCheetahForwardBackward`.
        states: states of the episode, stacked on the first axis, as `jax.lax.scan` stacks them. States after the end of
            the episode are left out.
        path: path of the page.

    Raises:
        ModuleNotFoundError: if brax is not installed.
        ValueError: if the environment has no body, or the states are not those of one episode.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxmeta import envs
        >>> def step(state, action):
        ...     state = env.step(state, action)
        ...     return state, state
        >>> env = envs.make("half-cheetah-forward-backward")  # doctest: +SKIP
        >>> _, states = jax.lax.scan(step, env.reset(jax.random.key(0)), jnp.zeros((100, 6)))  # doctest: +SKIP
        >>> save_html(env, states, "cheetah.html")  # doctest: +SKIP
    """
    physics_of = getattr(env, "physics", None)
    if physics_of is None:
        raise ValueError(f"env must have a body, as HalfCheetahForwardBackward has, got {type(env).__name__}")
    episode = _episode(states)
    physics = physics_of(episode[0].info["task"])
    capsules = _capsules(physics)
    data = {
        "seconds": float(physics.dt),
        "returns": np.cumsum([state.reward for state in episode]).round(2).tolist(),
        "body": np.stack([_body(state) for state in episode]).round(3).tolist(),
        "ends": np.stack([_place(capsules, state) for state in episode]).round(3).tolist(),
        "radius": capsules.radius.tolist(),
        "color": [f"rgb{color}" for color in capsules.color],
        "camera": [_AZIMUTH, _ELEVATION, _MIDDLE, _REACH, _FLOOR],
    }
    page = PAGE.replace("TITLE", type(env).__name__).replace("DATA", json.dumps(data, separators=(",", ":")))
    write_atomically(Path(path), page)


def save_video(env: MetaEnv, states: State, path: str | os.PathLike[str], *, frames_per_second: float = 20.0) -> None:
    """Saves an episode as a GIF or an MP4, for environments with a method `render`.

    All environments with a body have this method.

    Args:
        env: the environment.
        states: states of the episode, stacked on the first axis, as `jax.lax.scan` stacks them. States after the end of
            the episode are left out.
        path: path of the video, which ends in `.gif` or `.mp4`. An MP4 needs the program ffmpeg.
        frames_per_second: number of states per second, at most 50. Half-cheetahs and ants run in real time at 20.

    Raises:
        ValueError: if the environment cannot be drawn, the states are not those of one episode, `path` has another
            ending, or `frames_per_second` is out of range.
        RuntimeError: if ffmpeg is missing or fails.

    Example:
        >>> from jaxmeta import envs
        >>> env = envs.Particles2D()
        >>> def step(state, _):
        ...     state = env.step(state, env.oracle_action(state))
        ...     return state, state
        >>> _, states = jax.lax.scan(step, env.reset(jax.random.key(0)), length=5)
        >>> save_video(env, states, "particle.gif", frames_per_second=5)
    """
    check_positive(frames_per_second=frames_per_second)
    if frames_per_second > 50:
        raise ValueError(f"frames_per_second must be at most 50, got {frames_per_second}")
    check_choice("the ending of path", Path(path).suffix, (".gif", ".mp4"))
    render = getattr(env, "render", None)
    if render is None:
        raise ValueError(f"env must have a method render, got {type(env).__name__}")
    episode = _episode(states)
    frames = np.stack([render(episode[: i + 1]) for i in range(len(episode))])
    write = _write_mp4 if Path(path).suffix == ".mp4" else _write_gif
    write(frames, Path(path), frames_per_second)


def _write_gif(frames: np.ndarray, path: Path, frames_per_second: float) -> None:
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    with replacing(path) as file:
        first.save(file, "GIF", save_all=True, append_images=rest, duration=1000 / frames_per_second, loop=0)


def _write_mp4(frames: np.ndarray, path: Path, frames_per_second: float) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        raise RuntimeError("an MP4 needs ffmpeg, which is not on the PATH. Install it, or save a .gif")
    height, width = frames.shape[1:3]
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{frames_per_second}", "-i", "-"]
    # Video players need this pixel format, which in turn needs an even number of pixels along each axis.
    made = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", str(path)]
    done = subprocess.run(
        [program, "-y", "-loglevel", "error", *given, *made], input=frames.tobytes(), capture_output=True
    )
    if done.returncode:
        raise RuntimeError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()}")


def draw_body(physics: Physics, state: State) -> np.ndarray:
    """Draws a body from the initial view of the page, as an image `[240, 320, 3]` of uint8."""
    from PIL import Image, ImageDraw

    fine = 3  # oversampling along each axis, for smooth edges
    width, height = fine * _SIZE[0], fine * _SIZE[1]
    scale = height / (2 * _REACH)
    right = np.array([np.cos(_AZIMUTH), np.sin(_AZIMUTH), 0])
    away = np.array([-np.cos(_ELEVATION) * right[1], np.cos(_ELEVATION) * right[0], -np.sin(_ELEVATION)])
    camera = np.stack([right, -np.cross(right, away), away])
    body = _body(state)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)

    def project(ends: np.ndarray) -> np.ndarray:
        """Returns pixels to the right and downwards, and the depth."""
        return scale * (ends - [*body, _MIDDLE]) @ camera.T + [width / 2, height / 2, 0]

    def stroke(ends: np.ndarray, radius: float, color: tuple[int, ...]) -> None:
        draw.line([tuple(end[:2]) for end in ends], color, round(2 * radius))
        for x, y, _ in ends:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], color)

    for line in project(_floor(body)):
        stroke(line, fine / 2, (225, 225, 225))
    capsules = _capsules(physics)
    placed = project(_place(capsules, state))
    for i in np.argsort(-placed[..., 2].mean(axis=1)):
        (red, green, blue), radius = capsules.color[i], float(scale * capsules.radius[i])
        stroke(placed[i], radius + fine, (red // 2, green // 2, blue // 2))
        stroke(placed[i], radius, (red, green, blue))
    return np.asarray(image.resize(_SIZE, Image.Resampling.LANCZOS))


class _Capsules(NamedTuple):
    """The `G` parts of a body that are drawn, where a sphere is a capsule of length 0."""

    link: np.ndarray
    """Index of the link that the part is fixed to, -1 for the world, `[G]`."""
    ends: np.ndarray
    """Ends of the axis, in the link's frame, `[G, 2, 3]`."""
    radius: np.ndarray
    """Radius, `[G]`."""
    color: list[tuple[int, ...]]
    """Red, green and blue from 0 to 255."""


def _capsules(physics: Physics) -> _Capsules:
    """Returns the spheres and capsules of a body."""
    model = physics.system.mj_model
    drawn = np.isin(model.geom_type, (_SPHERE, _CAPSULE))
    size = model.geom_size[drawn]
    half = np.where(model.geom_type[drawn] == _CAPSULE, size[:, 1], 0)[:, None] * [0, 0, 1]
    ends = _rotate(model.geom_quat[drawn][:, None], np.stack([-half, half], axis=1))
    color = (255 * model.geom_rgba[drawn, :3]).astype(int)
    return _Capsules(
        link=model.geom_bodyid[drawn] - 1,
        ends=ends + model.geom_pos[drawn][:, None],
        radius=size[:, 0],
        color=[tuple(rgb) for rgb in color.tolist()],
    )


def _place(capsules: _Capsules, state: State) -> np.ndarray:
    """Returns the ends of the capsules in a state, `[G, 2, 3]`."""
    links = state.pipeline_state.x
    position = np.append(links.pos, np.zeros((1, 3)), axis=0)  # the last one, at index -1, is that of the world
    rotation = np.append(links.rot, [[1, 0, 0, 0]], axis=0)
    return _rotate(rotation[capsules.link][:, None], capsules.ends) + position[capsules.link][:, None]


def _rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Rotates vectors `[..., 3]` by unit quaternions `[..., 4]`, whose real part comes first."""
    real, imaginary = quaternion[..., :1], np.broadcast_to(quaternion[..., 1:], vector.shape)
    return vector + 2 * np.cross(imaginary, np.cross(imaginary, vector) + real * vector)


def _body(state: State) -> np.ndarray:
    """Returns the position of the torso on the plane, `[2]`."""
    return state.pipeline_state.x.pos[0, :2]


def _floor(body: np.ndarray) -> np.ndarray:
    """Returns the floor's lines around a body, at whole meters, `[lines, 2, 3]`."""
    x, y = np.round(body)
    steps = range(-_FLOOR, _FLOOR + 1)
    along_y = [[[x + i, y - _FLOOR, 0], [x + i, y + _FLOOR, 0]] for i in steps]
    along_x = [[[x - _FLOOR, y + i, 0], [x + _FLOOR, y + i, 0]] for i in steps]
    return np.array(along_y + along_x)


def _episode(states: State) -> list[State]:
    """Returns the states of one episode until its end, as NumPy arrays."""
    if np.ndim(states.done) != 1:
        raise ValueError(f"states must be those of one episode, stacked, got done with shape {np.shape(states.done)}")
    states = jax.device_get(states)
    length = int(np.argmax(np.append(states.done, 1) > 0)) + 1
    return [jax.tree.map(lambda x, i=i: x[i], states) for i in range(min(length, len(states.done)))]
