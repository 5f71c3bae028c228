// What the page's views are made of alike. routing.js stands before this text where a view shows routing.

const ICONS = {
  play: '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 2.5v11l9-5.5z"/></svg>',
  pause: '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z"/></svg>',
};
const NARROW = 600; // pixels of a view's own width: below this its parts stand one under the other
const OVERLAYS = {
  phenomena: "Each token has the colour of its strongest phenomenon, the fuller the larger its value. Percentages: the peak of each map. Choose one to see it alone.",
  top1: "Each cell is one token, in the colour of the expert with the largest weight. Percentages: share of the clip's tokens. Point at an expert to see where it acts.",
  all: "One picture for each expert: the fuller the colour, the larger its weight there. Percentages: share of the clip's tokens where it is the strongest.",
  expert: "The fuller the colour, the larger this expert's weight there; none where it was not chosen.",
  words: "How much each token attends to the chosen word, over all blocks and heads of the backbone, at the recorded step nearest to this one. Percentages: the largest share of a token's attention. Choose a token to see where it looks.",
  entropy: "How evenly a token's weight is spread over the experts, averaged over all denoising steps. 0: one expert has it all; 1: all have the same.",
  margin: "The strongest expert's weight less the second's, at this denoising step. 0: a tie; 1: one expert has it all.",
  phenomenon: "Where the branch's map, which was trained on labelled regions, places a phenomenon. Percentages: the map's peak.",
};
const isStill = window.matchMedia("(prefers-reduced-motion: reduce)");

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// The button of a mode: one expert is a way to see who acts, one phenomenon a way to see the phenomena.
const groupOf = (mode) => ({ expert: "top1", phenomenon: "phenomena" })[mode] || mode;
const isOfPhenomena = (mode) => groupOf(mode) === "phenomena";
// A greyed picture bears more colour than a coloured one.
const opacities = { grey: 0.9, colour: 0.45 };
const groundOf = (mode) => (mode === "phenomena" ? "grey" : "colour");
// Below this everywhere, a phenomenon is not in the clip: SHOWN_PEAK of prophy/runs/overlay.py.
const SHOWN_PEAK = 0.1;

// Calls onPoint(true) once a pointer has moved over a row, and onPoint(false) when it has left. A row that a scroll or a
// new layout brings under a resting pointer is not pointed at, nor is one under a finger.
function whenPointedAt(row, onPoint) {
  let isPointed = false;
  row.addEventListener("pointermove", (event) => {
    if (isPointed || event.pointerType === "touch" || !(event.movementX || event.movementY)) return;
    isPointed = true;
    onPoint(true);
  });
  row.addEventListener("pointerleave", () => {
    if (isPointed) onPoint(false);
    isPointed = false;
  });
}

const percent = (share) => (share > 0 && share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`);

function showOnButton(playButton, isPlaying) {
  playButton.innerHTML = isPlaying ? ICONS.pause : ICONS.play;
  playButton.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
}

// The opacity after "[" or "]", a tenth less or more in steps of a twentieth; undefined for any other key.
function opacityAfter(key, opacity) {
  if (key === "[") return Math.max(0, Math.round(20 * opacity - 2) / 20);
  if (key === "]") return Math.min(1, Math.round(20 * opacity + 2) / 20);
}

// A picture in a context turned to the light grey of prophy/runs/overlay.py: no saturation, then a veil.
function greyOut(context) {
  const { width, height } = context.canvas;
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "#808080";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "source-over";
  context.fillStyle = "rgba(212, 212, 212, 0.375)";
  context.fillRect(0, 0, width, height);
}

// A white line in a dark one, inside the cells: seen on every colour, and it leaves the neighbours as they are.
function outline(context, routing, { rows, columns }, thickness) {
  const { canvas } = context;
  const [x, y] = [(columns[0] / routing.width) * canvas.width, (rows[0] / routing.height) * canvas.height];
  const width = ((columns[1] + 1 - columns[0]) / routing.width) * canvas.width;
  const height = ((rows[1] + 1 - rows[0]) / routing.height) * canvas.height;
  const line = Math.min(thickness * (window.devicePixelRatio || 1), width / 6, height / 6);
  context.lineWidth = line;
  ["#000", "#fff"].forEach((colour, i) => {
    const inset = (i + 0.5) * line;
    context.strokeStyle = colour;
    context.strokeRect(x + inset, y + inset, width - 2 * inset, height - 2 * inset);
  });
}

// The cell of a picture under a pointer.
function cellUnder(routing, stage, event) {
  const box = stage.getBoundingClientRect();
  return cellAt(routing, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
}

// Whether a part was last filled for other things than these; it is drawn again only then.
function isOutdated(part, ...shows) {
  const key = shows.join(" ");
  if (part.dataset.shows === key) return false;
  part.dataset.shows = key;
  return true;
}

// --- links and the address bar ----------------------------------------------------------------------------------

const COPIED_MS = 1600;
const ADDRESS_MS = 400; // without a change, after which the address bar is written: browsers refuse to do so often

// The tab on show, by its id in prophy/ui/page.py; null on a page without tabs.
const tabOnShow = () => document.querySelector("[data-tab-id][aria-selected=true]")?.dataset.tabId ?? null;
// Whether an address names two runs, which are the compare view's.
const isOfPair = (search) => new URLSearchParams(search).has("a");
// From one of the two views that have an address to the other; whoever reads another tab stays there.
function toTab(id) {
  if (["generate", "compare"].includes(tabOnShow())) document.querySelector(`[data-tab-id="${id}"]`)?.click();
}

// A view's hold on the address bar: it writes `link()` there, unless that is null, and only while its own tab is on show.
// In another site's frame the browser may refuse; then there is nothing to go back to.
function addressBar(tab, link) {
  let waiting = 0;
  const write = (how) => {
    clearTimeout(waiting);
    const text = link();
    if (text === null || ![null, tab].includes(tabOnShow())) return;
    try {
      history[how](null, "", text);
    } catch {
      // refused
    }
  };
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => write("replaceState"), ADDRESS_MS);
  };
  return { add: () => write("pushState"), soon };
}

// Puts a link on the clipboard and says so; where there is none, or it was refused, the link stands in `field`, ready to
// be copied by hand.
async function copyLink(link, field, said) {
  field.value = link;
  try {
    await navigator.clipboard.writeText(link);
  } catch {
    field.hidden = false;
    field.focus();
    field.select();
    return;
  }
  field.hidden = true;
  said.textContent = "copied";
  setTimeout(() => (said.textContent = ""), COPIED_MS);
}

// The scale of levels from 0 to 1 as a background.
function scaleGradient() {
  const stops = Array.from({ length: 18 }, (_, i) => `rgb(${CIVIDIS.subarray(45 * i, 45 * i + 3).join(", ")})`);
  return `linear-gradient(to right, ${stops.join(", ")})`;
}
