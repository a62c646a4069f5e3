"""Web page that plays an episode of a body, with placeholders TITLE and DATA."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>TITLE</title>
<style>
body { margin: 0; font: 15px sans-serif; }
canvas { display: block; width: 100vw; height: calc(100vh - 44px); cursor: grab; touch-action: none; }
form { display: flex; gap: 12px; align-items: center; height: 44px; padding: 0 12px; }
input { flex: 1; }
</style>
<canvas></canvas>
<form><button type="button">Pause</button><input type="range" value="0" aria-label="step"><output></output></form>
<script>
const data = DATA;
const canvas = document.querySelector("canvas"), button = document.querySelector("button");
const slider = document.querySelector("input"), output = document.querySelector("output");
const steps = data.ends.length, context = canvas.getContext("2d");
let [azimuth, elevation, middle, reach, floor] = data.camera;
let time = 0, last = null, playing = true;
slider.max = steps - 1;

function draw() {
  const step = Math.min(Math.floor(time / data.seconds), steps - 1), [x, y] = data.body[step];
  const width = canvas.width = canvas.clientWidth * devicePixelRatio;
  const height = canvas.height = canvas.clientHeight * devicePixelRatio;
  const scale = Math.min(height, width) / (2 * reach);
  const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
  const project = ([px, py, pz]) => {  // pixels to the right and downwards, and depth
    const right = ca * (px - x) + sa * (py - y), back = ca * (py - y) - sa * (px - x), up = pz - middle;
    return [width / 2 + scale * right, height / 2 - scale * (ce * up + se * back), ce * back - se * up];
  };
  const stroke = ([start, end], thickness, color) => {
    context.beginPath();
    context.moveTo(start[0], start[1]);
    context.lineTo(end[0], end[1]);
    context.lineWidth = thickness;
    context.strokeStyle = color;
    context.stroke();
  };
  context.lineCap = "round";
  for (let i = -floor; i <= floor; i++) {
    const u = Math.round(x), v = Math.round(y);
    stroke([[u + i, v - floor, 0], [u + i, v + floor, 0]].map(project), devicePixelRatio, "#ddd");
    stroke([[u - floor, v + i, 0], [u + floor, v + i, 0]].map(project), devicePixelRatio, "#ddd");
  }
  const parts = data.ends[step].map((ends, i) => [ends.map(project), 2 * scale * data.radius[i], data.color[i]]);
  parts.sort(([p], [q]) => q[0][2] + q[1][2] - p[0][2] - p[1][2]);
  for (const [ends, thickness, color] of parts) {
    stroke(ends, thickness + 2 * devicePixelRatio, "#222");
    stroke(ends, thickness, color);
  }
  slider.value = step;
  output.value = `${(step * data.seconds).toFixed(2)} s, return ${data.returns[step].toFixed(2)}`;
}

function tick(now) {
  if (playing && last !== null) time = (time + (now - last) / 1000) % (steps * data.seconds);
  last = now;
  draw();
  requestAnimationFrame(tick);
}

function play(on) { playing = on; button.textContent = on ? "Pause" : "Play"; }
button.onclick = () => play(!playing);
slider.oninput = () => { play(false); time = (Number(slider.value) + 0.5) * data.seconds; };
canvas.onpointermove = (event) => {
  if (!event.buttons) return;
  azimuth -= event.movementX / 150;
  elevation = Math.max(0, Math.min(Math.PI / 2, elevation + event.movementY / 150));
};
requestAnimationFrame(tick);
</script>
</html>
"""
