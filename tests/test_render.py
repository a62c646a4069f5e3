"""Pages and videos of episodes: bodies at the places of MuJoCo, pictures like those of `render`."""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from jaxmeta import envs
from jaxmeta.envs._render import draw_body

mujoco: Any = pytest.importorskip("mujoco")
STEPS = 4
XML = """
<mujoco>
  <worldbody>
    <geom type="plane" size="5 5 5"/>
    <geom type="sphere" size="0.2" pos="2 0 0.2" rgba="0 1 0 1"/>
    <body pos="0 0 0.6">
      <joint type="free"/>
      <geom type="sphere" size="0.3" rgba="1 0 0 1"/>
      <body pos="0.3 0 0">
        <joint type="hinge" axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 0.4 0.1 -0.3" size="0.05" rgba="0 0 1 1"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


class Pose(NamedTuple):
    pos: Any
    rot: Any


class PhysicsState(NamedTuple):
    x: Pose


def episode_of(positions, rotations, done=(0, 0, 0, 0)) -> Any:
    zero = np.zeros(len(positions))
    state = PhysicsState(Pose(np.array(positions), np.array(rotations)))
    arrays: Any = np.zeros((len(zero), 3)), np.arange(1.0, len(zero) + 1), np.array(done)
    obs, reward, done = arrays
    return envs.State(state, obs, reward, done, {}, {"task": zero})


def drawn(physics) -> Any:
    """Returns the part of an environment with a body that is needed to draw it."""
    return SimpleNamespace(physics=lambda task: physics, render=lambda states: draw_body(physics, states[-1]))


@pytest.fixture(scope="module")
def moved() -> Any:
    """Returns an environment with a body, its random poses, and MuJoCo's centers and axes of the geoms."""
    model = mujoco.MjModel.from_xml_string(XML)
    data, random = mujoco.MjData(model), np.random.default_rng(0)
    positions, rotations, centers, axes = [], [], [], []
    for _ in range(STEPS):
        data.qpos[:] = random.normal(size=model.nq)
        data.qpos[2:7] = [0.6, *(data.qpos[3:7] / np.linalg.norm(data.qpos[3:7]))]
        mujoco.mj_forward(model, data)
        positions.append(data.xpos[1:].copy())
        rotations.append(data.xquat[1:].copy())
        centers.append(data.geom_xpos[1:].copy())
        axes.append(data.geom_xmat.reshape(-1, 3, 3)[1:, :, 2].copy())
    physics = SimpleNamespace(dt=0.05, system=SimpleNamespace(mj_model=model))
    return drawn(physics), episode_of(positions, rotations), np.array(centers), np.array(axes)


def page_data(path):
    return json.loads(re.findall("const data = (.*);", path.read_text())[0])


def gif_frames(path):
    with Image.open(path) as image:
        return np.stack([np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(image)])


def test_page_has_the_body_where_mujoco_puts_it(moved, tmp_path):
    env, states, centers, axes = moved
    envs.save_html(env, states, tmp_path / "a.html")
    data = page_data(tmp_path / "a.html")
    half = np.array([0, 0, np.linalg.norm([0.4, 0.1, 0.3]) / 2])[:, None]
    expected = np.stack([centers - half * axes, centers + half * axes], axis=2)
    np.testing.assert_allclose(data["ends"], expected, atol=6e-4)
    np.testing.assert_allclose(data["body"], centers[:, 1, :2], atol=6e-4)
    np.testing.assert_allclose(data["radius"], [0.2, 0.3, 0.05])
    assert data["color"] == ["rgb(0, 255, 0)", "rgb(255, 0, 0)", "rgb(0, 0, 255)"]
    assert data["returns"] == [1, 3, 6, 10]
    assert data["seconds"] == 0.05


def test_page_needs_no_other_file(moved, tmp_path):
    env, states = moved[:2]
    envs.save_html(env, states, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert not re.search(r"https?:|src=|href=|@import|import ", page)


def test_gif_follows_the_body(moved, tmp_path):
    env, states = moved[:2]
    envs.save_video(env, states, tmp_path / "a.gif", frames_per_second=10)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.info["duration"], image.info["loop"]) == (100, 0)
    frames = gif_frames(tmp_path / "a.gif")
    assert frames.shape == (STEPS, 240, 320, 3)
    for pixels in frames:
        red = (pixels[..., 0] > 150) & (pixels[..., 1:].max(axis=-1) < 100)
        radius = 0.3 * 120 / 1.4  # half the height is 1.4 m
        y, x = np.nonzero(red)
        assert abs(x.max() + 0.5 - 160 - radius) < 3 or abs(160 - x.min() - 0.5 - radius) < 3
        assert np.hypot(x + 0.5 - 160, y + 0.5 - 120).max() < radius + 2
        assert len(x) > 0.6 * np.pi * radius**2  # the rest is behind the capsule


def test_nearer_parts_hide_farther_ones(tmp_path):
    xml = '<geom type="sphere" size="0.3" pos="{} {} 0.6" rgba="{} {} 0 1"/>'
    spheres = [xml.format(0, 0.4, 1, 0), xml.format(0, -0.4, 0, 1)]
    for order in (spheres, spheres[::-1]):
        model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{''.join(order)}<body/></worldbody></mujoco>")
        physics = SimpleNamespace(dt=0.1, system=SimpleNamespace(mj_model=model))
        states = episode_of([[[0.0, 0.0, 0.0]]], [[[1.0, 0.0, 0.0, 0.0]]], done=[0])
        envs.save_video(drawn(physics), states, tmp_path / "a.gif")
        pixels = gif_frames(tmp_path / "a.gif")[0]
        green, red = ((pixels[..., i] - pixels[..., 1 - i] > 100).sum() for i in (1, 0))
        assert green == pytest.approx(np.pi * (0.3 * 120 / 1.4 + 1) ** 2, rel=0.03)  # with an outline
        assert 0 < red < 0.95 * green


def test_what_follows_the_end_is_left_out(moved, tmp_path):
    env, states = moved[:2]
    envs.save_html(env, states.replace(done=np.array([0, 1, 0, 1])), tmp_path / "a.html")
    assert page_data(tmp_path / "a.html")["returns"] == [1, 3]


def test_gif_of_particles_is_what_render_draws(tmp_path):
    env = envs.Particles2D()
    start = env.reset(jax.random.key(0), {"goal": jnp.array([0.3, -0.35])})

    def step(state, _):
        state = env.step(state, env.oracle_action(state))
        return state, state

    _, states = jax.lax.scan(step, start, length=6)
    envs.save_video(env, states, tmp_path / "a.gif")
    episode = [jax.tree.map(lambda x, i=i: x[i], states) for i in range(4)]  # which reach the goal
    np.testing.assert_array_equal(gif_frames(tmp_path / "a.gif"), [env.render(episode[: i + 1]) for i in range(4)])


@pytest.mark.parametrize("wrap", [lambda obs: obs, lambda obs: {"image": obs}], ids=["images", "mappings"])
def test_films_take_observations_of_any_form(wrap, tmp_path):
    env = envs.DarkRoom(size=3)
    start = env.reset(jax.random.key(0), {"goal": jnp.array([0, 1])})
    states = [start, env.step(start, jnp.array(1)), env.step(start, jnp.array(2))]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    envs.save_video(env, stacked.replace(obs=wrap(stacked.obs)), tmp_path / "a.gif")
    drawn_frames = [env.render(states[: i + 1]) for i in range(3)]
    np.testing.assert_array_equal(gif_frames(tmp_path / "a.gif"), drawn_frames)


PROGRAM = """#!/bin/sh
for last; do :; done
echo "$@" > "$last.args"
exec cat > "$last"
"""


def test_mp4_is_what_ffmpeg_makes_of_the_frames(moved, tmp_path, monkeypatch):
    """The program ffmpeg is replaced by one that records its arguments and its input."""
    env, states = moved[:2]
    (tmp_path / "ffmpeg").write_text(PROGRAM)
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    envs.save_video(env, states, tmp_path / "a.mp4", frames_per_second=12.5)
    envs.save_video(env, states, tmp_path / "a.gif")
    given = np.fromfile(tmp_path / "a.mp4", np.uint8).reshape(STEPS, 240, 320, 3)
    assert np.abs(given - gif_frames(tmp_path / "a.gif")).mean() < 2  # a GIF has 256 colors
    assert "-f rawvideo -pix_fmt rgb24 -s 320x240 -r 12.5 -i -" in (tmp_path / "a.mp4.args").read_text()

    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho no such codec >&2; exit 1\n")
    with pytest.raises(RuntimeError, match="ffmpeg failed: no such codec"):
        envs.save_video(env, states, tmp_path / "a.mp4")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="an MP4 needs ffmpeg, .* Install it, or save a .gif"):
        envs.save_video(env, states, tmp_path / "b.mp4")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
def test_mp4_shows_the_frames(moved, tmp_path):
    """Frames with odd numbers of pixels are padded."""
    env, states = moved[:2]
    odd: Any = SimpleNamespace(render=lambda states: env.render(states)[:-1, :-1])
    envs.save_video(odd, states, tmp_path / "a.mp4")
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(["ffmpeg", "-i", tmp_path / "a.mp4", *raw], check=True, capture_output=True).stdout
    frames = np.frombuffer(shown, np.uint8).reshape(STEPS, 240, 320, 3)[:, :-1, :-1]
    episode = [jax.tree.map(lambda x, i=i: x[i], states) for i in range(STEPS)]
    assert np.abs(frames - np.stack([odd.render([state]) for state in episode]).astype(int)).mean() < 5


def test_errors(moved, tmp_path):
    env, states = moved[:2]
    bandit = envs.BernoulliBandit()
    start = bandit.reset(jax.random.key(0))
    with pytest.raises(ValueError, match="env must have a body, as .* got BernoulliBandit"):
        envs.save_html(bandit, start, tmp_path / "a.html")
    with pytest.raises(ValueError, match="env must have a method render, got BernoulliBandit"):
        envs.save_video(bandit, jax.tree.map(lambda x: x[None], start), tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"states must be those of one episode, stacked, got done with shape \(\)"):
        envs.save_html(env, jax.tree.map(lambda x: x[0], states), tmp_path / "a.html")
    with pytest.raises(ValueError, match="ending of path must be one of '.gif', '.mp4', got '.avi'"):
        envs.save_video(env, states, tmp_path / "a.avi")
    for rate in (0, 51, float("nan")):
        with pytest.raises(ValueError, match="frames_per_second must be"):
            envs.save_video(env, states, tmp_path / "a.gif", frames_per_second=rate)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["half-cheetah-forward-backward", "hopper-params"])
def test_bodies_of_brax(name, tmp_path):
    env: Any = envs.make(name)
    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 2))
    envs.save_html(env, states, tmp_path / "a.html")
    gym = envs.GymEnv(env, render_mode="rgb_array")
    gym.reset(seed=0)
    image = np.asarray(gym.render())
    assert image.shape == (240, 320, 3) and image.dtype == np.uint8
    assert 0.005 < (image.max(axis=-1) < 200).mean() < 0.2  # the body; lines of the floor are lighter
    ends = np.array(page_data(tmp_path / "a.html")["ends"])
    radius = np.array(page_data(tmp_path / "a.html")["radius"])
    lowest = (ends[..., 2] - radius[:, None]).min(axis=(1, 2))
    assert np.all((lowest > -0.2) & (lowest < 0.2))  # it stands on the floor
