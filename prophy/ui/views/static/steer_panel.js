// The steering panel. gradio gives `element`, `props`, `trigger` and `watch`; routing.js, parts.js and steering.js stand
// before this text.
//
// Its value is that of prophy.ui.controls.steer.SteerView. Each change triggers 'steer' with the JSON of
// prophy.routing.steering.

const panel = element.querySelector(".pp-steer");
const get = (selector) => panel.querySelector(selector);
const brush = get(".pp-brush");
const addButton = get(".pp-add");
const strength = get(".pp-strength input");
const STRONGEST = 3; // that the slider offers; a run may have had more
const BRUSH_SIDE = 192; // pixels, of the longer side

const ADDED_ALPHA = 0.6; // of regions that were added, beside the one being painted

let given = null;
let steering = neutral();
let painted = new Set();
let cursor = null; // the cell that the keyboard is on
let picture = null;

// --- knobs --------------------------------------------------------------------------------------------------------

function knob(kind, expert) {
  const row = make("div", "pp-knob");
  row.dataset.expert = expert;
  const swatch = make("i", "pp-swatch");
  if (kind === "refinement") swatch.style.background = given.experts[expert];
  const group = make("div", "pp-segments");
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", `${kind} expert ${expert}`);
  for (const [name, scale] of SCALES) {
    const button = make("button", "", name);
    button.type = "button";
    button.dataset.scale = scale;
    button.addEventListener("click", () => {
      setScale(steering, kind, expert, scale);
      changed();
    });
    group.append(button);
  }
  const name = make("span", "pp-name", `Expert ${expert}`);
  row.append(swatch, name, group);
  if (kind === "refinement") {
    const said = [given.names[expert], given.shares.length ? `used ${percent(given.shares[expert])}` : ""];
    name.append(make("small", "pp-does", said.filter(Boolean).join(" · ")));
  }
  return row;
}

function preset({ name, steering: document }) {
  const button = make("button", "pp-preset", name);
  button.type = "button";
  button.addEventListener("click", () => {
    steering = fromJson(document, given.grid[2]);
    changed();
  });
  return button;
}

function showStrength() {
  strength.max = Math.max(STRONGEST, steering.strength);
  strength.value = steering.strength;
  const meaning = { 0: "off: the backbone alone", 1: "as trained" }[steering.strength];
  strength.nextElementSibling.textContent = `×${steering.strength}${meaning ? `, ${meaning}` : ""}`;
}

function showKnobs() {
  for (const list of panel.querySelectorAll(".pp-knobs")) {
    for (const row of list.children) {
      const scale = steering[list.dataset.kind].get(Number(row.dataset.expert)) ?? 1;
      row.classList.toggle("is-steered", scale !== 1);
      for (const button of row.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(Number(button.dataset.scale) === scale));
      }
    }
  }
}

// --- painting -----------------------------------------------------------------------------------------------------

function drawBrush() {
  const [, rows, columns] = given.grid;
  const context = brush.getContext("2d");
  const [w, h] = [brush.width / columns, brush.height / rows];
  context.clearRect(0, 0, brush.width, brush.height);
  if (picture) context.drawImage(picture, 0, 0, brush.width, brush.height);
  const fill = (cells, colour, alpha) => {
    context.globalAlpha = alpha;
    context.fillStyle = colour;
    for (const cell of cells) context.fillRect((cell % columns) * w, Math.floor(cell / columns) * h, w, h);
    context.globalAlpha = 1;
  };
  for (const { expert, cells } of steering.forced) fill(cells, given.experts[expert], ADDED_ALPHA);
  fill(painted, given.experts[Number(get(".pp-which").value)] || "#888", 1);
  context.strokeStyle = "rgba(127, 127, 127, 0.45)";
  context.lineWidth = 1;
  for (let c = 1; c < columns; c++) context.strokeRect(Math.round(c * w) - 0.5, -1, 0, brush.height + 2);
  for (let r = 1; r < rows; r++) context.strokeRect(-1, Math.round(r * h) - 0.5, brush.width + 2, 0);
  if (cursor !== null && document.activeElement === brush) {
    context.strokeStyle = "#fff";
    context.lineWidth = 3;
    context.strokeRect((cursor % columns) * w + 1.5, Math.floor(cursor / columns) * h + 1.5, w - 3, h - 3);
  }
  brush.dataset.cells = painted.size;
  brush.dataset.added = new Set(steering.forced.flatMap(({ cells }) => [...cells])).size;
  addButton.disabled = painted.size === 0;
}

function cellUnder(event) {
  const [, rows, columns] = given.grid;
  const box = brush.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
  return row >= 0 && row < rows && column >= 0 && column < columns ? row * columns + column : null;
}

function paint(cell, isOn) {
  if (cell === null) return;
  if (isOn) painted.add(cell);
  else painted.delete(cell);
  drawBrush();
}

let painting = null; // true while a drag paints, false while it wipes

brush.addEventListener("pointerdown", (event) => {
  const cell = cellUnder(event);
  if (cell === null) return;
  brush.setPointerCapture(event.pointerId);
  painting = !painted.has(cell);
  paint(cell, painting);
});
brush.addEventListener("pointermove", (event) => painting !== null && paint(cellUnder(event), painting));
for (const name of ["pointerup", "pointercancel"]) brush.addEventListener(name, () => (painting = null));
for (const name of ["focus", "blur"]) brush.addEventListener(name, () => given && drawBrush());
brush.addEventListener("keydown", (event) => {
  const [, rows, columns] = given.grid;
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const at = cursor ?? Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  if (moves[event.key]) {
    const [dr, dc] = moves[event.key];
    const row = Math.min(rows - 1, Math.max(0, Math.floor(at / columns) + dr));
    const column = Math.min(columns - 1, Math.max(0, (at % columns) + dc));
    cursor = row * columns + column;
  } else if (event.key === " ") {
    cursor = at;
    paint(at, !painted.has(at));
  } else return;
  event.preventDefault();
  drawBrush();
});

addButton.addEventListener("click", () => {
  const [first, last] = [Number(get(".pp-from").value), Number(get(".pp-to").value)];
  steering.forced.push({
    expert: Number(get(".pp-which").value),
    first: Math.min(first, last),
    last: Math.max(first, last),
    cells: painted,
  });
  painted = new Set();
  changed();
});

function showRegions() {
  const lines = describeSteering({ ...neutral(), forced: steering.forced });
  get(".pp-regions").replaceChildren(
    ...lines.map((line, i) => {
      const item = make("li", "", line);
      const remove = make("button", "", "×");
      remove.type = "button";
      remove.setAttribute("aria-label", `Remove: ${line}`);
      remove.addEventListener("click", () => {
        steering.forced.splice(i, 1);
        changed();
      });
      item.append(remove);
      return item;
    }),
  );
}

// --- all of it ----------------------------------------------------------------------------------------------------

function show() {
  const lines = describeSteering(steering);
  get(".pp-steer-said").textContent = lines.length ? lines.join(" · ") : "Every expert is as it is.";
  get(".pp-reset").disabled = isNeutral(steering);
  showStrength();
  showKnobs();
  showRegions();
  drawBrush();
}

function changed() {
  show();
  trigger("steer", { steering: toJson(steering, given.grid[2]) });
}

function options(select, count, chosen, name) {
  select.replaceChildren(...Array.from({ length: count }, (_, i) => new Option(name(i), i, false, i === chosen)));
}

function open(value) {
  panel.hidden = !value;
  given = value;
  if (!value) return;
  const [frames, rows, columns] = value.grid;
  steering = fromJson(value.steering, columns);
  painted = new Set();
  cursor = null;
  const scale = (BRUSH_SIDE * (window.devicePixelRatio || 1)) / Math.max(rows, columns);
  brush.width = Math.round(columns * scale);
  brush.height = Math.round(rows * scale);
  brush.style.aspectRatio = columns / rows;
  get('[data-kind="refinement"]').replaceChildren(...value.experts.map((_, e) => knob("refinement", e)));
  get('[data-kind="semantic"]').replaceChildren(
    ...Array.from({ length: value.semantic }, (_, e) => knob("semantic", e)),
  );
  get(".pp-presets").replaceChildren(...value.presets.map(preset));
  const what = { true: "share of the clip's tokens", false: "share as measured" }[Boolean(value.poster)];
  get(".pp-shares-of").textContent = `which act token by token${value.shares.length ? `; ${what}` : ""}`;
  options(get(".pp-which"), value.experts.length, 0, (i) => expertName(value, i));
  const when = (t) => `${t} (${framesText(t, value.temporal)})`;
  options(get(".pp-from"), frames, 0, when);
  options(get(".pp-to"), frames, frames - 1, when);
  picture = null;
  if (value.poster) {
    const image = new Image();
    image.onload = () => {
      if (given !== value) return;
      picture = image;
      drawBrush();
    };
    image.src = value.poster;
  }
  show();
}

get(".pp-reset").addEventListener("click", () => {
  steering = neutral();
  changed();
});
strength.addEventListener("input", () => {
  steering.strength = Number(strength.value);
  showStrength();
});
strength.addEventListener("change", changed);
get(".pp-which").addEventListener("change", drawBrush);
watch("value", () => open(props.value));
open(props.value || null);
