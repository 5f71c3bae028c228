// What the page's views are made of alike. routing.js stands before this text where a view shows routing.

const ICONS = {
  play: '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 2.5v11l9-5.5z"/></svg>',
  pause: '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z"/></svg>',
};
const NARROW = 700; // pixels of a view's own width: below this its parts stand one under the other
const OVERLAYS = {
  top1: "Each cell is one token, in the colour of the expert with the largest weight. Percentages: share of the clip's tokens.",
  expert: "The fuller the colour, the larger this expert's weight there; none where it was not chosen.",
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

// The scale of levels from 0 to 1 as a background.
function scaleGradient() {
  const stops = Array.from({ length: 18 }, (_, i) => `rgb(${CIVIDIS.subarray(45 * i, 45 * i + 3).join(", ")})`);
  return `linear-gradient(to right, ${stops.join(", ")})`;
}
