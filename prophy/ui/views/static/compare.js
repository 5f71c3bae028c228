// Two runs against each other: arithmetic only. Pure: no page, no component; tests run this file under node.

const HELD_BYTES = 256 * 2 ** 20; // of decoded frames, both clips together

// Width and height to hold frames at, so that two clips fit in memory: their own where that fits.
function heldSize(width, height, frames) {
  const scale = Math.min(1, Math.sqrt(HELD_BYTES / (2 * 4 * frames * width * height)));
  return [width, height].map((side) => Math.max(1, Math.floor(scale * side)));
}

// The frame on show after so many milliseconds of a loop. The small addition absorbs rounding.
function loopFrame(milliseconds, fps, frames) {
  return Math.floor(Math.max(0, (milliseconds * fps) / 1000) + 1e-6) % frames;
}

// Of a slider with so many positions, the kept step that a position means for a run with `kept` of them: the same share.
function stepAt(position, positions, kept) {
  return positions === 1 ? kept - 1 : Math.round((position * (kept - 1)) / (positions - 1));
}

// The other way round: the position that means a kept step.
function positionOf(step, positions, kept) {
  return kept === 1 ? positions - 1 : Math.round((step * (positions - 1)) / (kept - 1));
}

// Mean level of a region's tokens at a latent frame, 0 to 1.
function regionLevel(levels, { width, height }, latent, { rows, columns }) {
  let sum = 0;
  for (let row = rows[0]; row <= rows[1]; row++) {
    for (let column = columns[0]; column <= columns[1]; column++) sum += levels[(latent * height + row) * width + column];
  }
  return sum / (255 * (rows[1] - rows[0] + 1) * (columns[1] - columns[0] + 1));
}

// RGBA of one latent frame's tokens: each level's colour on the scale, every token alike opaque.
function differenceColours(levels, scale, latent, perFrame, opacity) {
  const rgba = new Uint8ClampedArray(4 * perFrame);
  for (let i = 0; i < perFrame; i++) {
    const level = levels[latent * perFrame + i];
    rgba.set(scale.subarray(3 * level, 3 * level + 3), 4 * i);
    rgba[4 * i + 3] = Math.round(255 * opacity);
  }
  return rgba;
}

const VISIBLE = [
  [0, "they are the same, frame by frame"],
  [1, "this is not visible"],
  [3, "this is hard to see"],
  [Infinity, "this is visible"],
];

// What the measured difference of two clips means to an eye; `pixels`: mean absolute difference by frame, 0 to 1.
function verdict(pixels) {
  const levels = pixels.map((share) => 255 * share);
  const mean = levels.reduce((sum, level) => sum + level, 0) / levels.length;
  const largest = Math.max(...levels);
  if (largest === 0) return `The pictures do not differ: ${VISIBLE[0][1]}.`;
  // The frame that differs most decides: a clip is seen frame by frame.
  const [, meaning] = VISIBLE.slice(1).find(([below]) => largest < below);
  const text = (level) => (level < 0.05 ? "less than 0.1" : level.toFixed(1));
  return `The pictures differ by ${text(mean)} of 255 on average, ${text(largest)} in the frame that differs most: ${meaning}.`;
}

// The doublings that make a difference plain to see, at most six.
function doublings(pixels) {
  const largest = Math.max(...pixels);
  if (largest <= 0) return 0;
  return Math.min(6, Math.max(0, Math.ceil(Math.log2(0.12 / largest))));
}

// Mean and largest of some levels, 0 to 1.
function levelSummary(levels) {
  let sum = 0;
  let largest = 0;
  for (const level of levels) {
    sum += level;
    largest = Math.max(largest, level);
  }
  return { mean: sum / levels.length / 255, largest: largest / 255 };
}

// Two sets of weights as pairs of bars. Heights are shares of the largest weight; `common` is the share of a bar that the
// other one reaches too. A missing set gives bars of no height.
function pairedBars(a, b) {
  const count = (a || b).length;
  const largest = Math.max(...(a || []), ...(b || []));
  return Array.from({ length: count }, (_, s) => {
    const weights = [a ? a[s] : 0, b ? b[s] : 0];
    const shorter = Math.min(...weights);
    return weights.map((weight) => ({ weight, height: weight / largest, common: weight > 0 ? shorter / weight : 0 }));
  });
}

// Where the divider goes, in percent from the left; null for a key that does not move it.
function wipeAfterKey(key, wipe) {
  const moves = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
  return key in moves ? Math.min(100, Math.max(0, wipe + moves[key])) : null;
}

// --- the address bar ---------------------------------------------------------------------------------------------

const LAYOUTS = ["side", "wipe", "amplified"];
const COMPARED_VIEWS = ["off", "phenomena", "phenomenon", "top1", "expert", "entropy", "margin", "difference"];

// What the address says of two runs on show, as {name: text}; `rest`: what addressOf says of the view over them.
function pairAddress(a, b, layout, wipe, { run: _, ...rest }) {
  return { a, b, layout, ...(layout === "wipe" ? { wipe: Math.round(wipe) } : {}), ...rest };
}

// The layout, and the place of the divider in percent or null, that an address, which anyone may have typed, asks for.
function readLayout(search) {
  const asked = new URLSearchParams(search);
  const layout = LAYOUTS.includes(asked.get("layout")) ? asked.get("layout") : null;
  const wipe = /^\d{1,3}$/.test(asked.get("wipe") || "") ? Math.min(100, Number(asked.get("wipe"))) : null;
  return { layout, wipe };
}

// Whether an address names these two runs, in this order.
function namesPair(search, a, b) {
  const asked = new URLSearchParams(search);
  return asked.get("a") === a && asked.get("b") === b;
}

if (typeof module !== "undefined") {
  module.exports = {
    COMPARED_VIEWS,
    HELD_BYTES,
    differenceColours,
    doublings,
    heldSize,
    levelSummary,
    loopFrame,
    namesPair,
    pairAddress,
    pairedBars,
    positionOf,
    readLayout,
    regionLevel,
    stepAt,
    verdict,
    wipeAfterKey,
  };
}
