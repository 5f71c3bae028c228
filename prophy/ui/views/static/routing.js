// The routing of a run, read from bytes. Pure: no page, no component; tests run this file under node.
//
// A routing has D kept denoising steps, N = T·H·W tokens, K experts a token, P phenomena. Tokens are counted frame by
// frame, row by row.

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function rgbOf(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

// OpenCV's cividis, 256 times red, green, blue: the scale of prophy/runs/overlay.py, for entropy and margin.
const CIVIDIS = bytesOf(
    "ACJOACNPACRRACVTACVUACZWACdYAChZAChbACldACpfACphACtiACxkACxmAC1oAC5qAC5sAC9tADBvADBwADFwADFxATJxBTNxCDNwDDRwDzVw" +
    "EjVwFDZwFjdwGDdvGjhvHDlvHjpvIDpvITtuIzxuJDxuJj1uJz5uKT9uKj9tK0BtLUFtLkFtL0JtMUNtMkNtM0RtNEVsNUVsNkZsOEdsOUhsOkhs" +
    "O0lsPEpsPUpsPktsP0xsQExsQU1sQk5sQ05sRE9sRVBsRlFsR1FsSFJsSVNsSlNsS1RsTFVsTVVsTlZsT1dsUFdsUVhtUlltU1ptVFptVVttVVxt" +
    "VlxtV11tWF5tWV5uWl9uW2BuXGFuXWFuXmJuXmNvX2NvYGRvYWVvYmVvY2ZwZGdwZWhwZWhwZmlwZ2pxaGpxaWtxamxxa21ybG1ybG5ybW9ybm9z" +
    "b3BzcHFzcXJ0cnJ0cnN0c3R1dHR1dXV1dnZ2d3d2d3d3eHh3eXl3enp4e3p4fHt4fXx4fnx4fn14f354gH94gX94goB5g4F5hIJ5hYJ5hoN5h4R4" +
    "iIV4iYV4ioZ4i4d4jIh4jYh4jol4j4p4kIt4kYt4kox4ko14k454lI53lY93lpB3l5F3mJJ3mZJ3mpN2m5R2nJV2nZV2npZ2n5d1oJh1oZl1opl1" +
    "o5p0pJt0pZx0ppx0p51zqJ5zqZ9zqqBzq6ByrKFyraJyrqNxr6RxsKVxsaVws6ZwtKdvtahvtqlvt6luuKpuuattuqxtu61tvK5sva5svq9rv7Br" +
    "wLFqwbJqwrNpw7NpxLRoxbVoxrZnx7dnyLhmyblly7llzLpkzbtjzrxjz71i0L5i0b9h0sBg08Bf1MFf1cJe1sNd18Rc2cVc2sZb28da3MhZ3chY" +
    "3slY38pX4MtW4cxV4s1U5M5T5c9S5tBR59FQ6NJP6dNO6tNM69RL7dVK7tZJ79dI8NhG8dlF8tpE89tC9dxB9t0/994++N88+eA6++E4/OI2/eM0" +
    "/uQ0/uU1/uY2/ug4",
);

// The video frame on screen at a time in seconds. A frame's own time is frame / fps; the small addition absorbs rounding.
function videoFrame(seconds, fps, frames) {
  return Math.min(frames - 1, Math.max(0, Math.floor(seconds * fps + 0.05)));
}

// The time to seek to for a frame: its middle, so that rounding never shows a neighbour.
function seekTime(frame, fps) {
  return (frame + 0.5) / fps;
}

// The latent frame a video frame shows: 0 for the first, then one for every `temporal`.
function latentFrame(frame, temporal) {
  return frame === 0 ? 0 : 1 + Math.floor((frame - 1) / temporal);
}

// The first video frame that shows a latent frame.
function firstVideoFrame(latent, temporal) {
  return latent === 0 ? 0 : 1 + temporal * (latent - 1);
}

function readRouting(sent) {
  const [frames, height, width] = sent.grid;
  return {
    ...sent,
    frames,
    height,
    width,
    tokens: frames * height * width,
    ids: bytesOf(sent.ids),
    weights: bytesOf(sent.weights),
    maps: bytesOf(sent.maps),
    entropy: bytesOf(sent.entropy),
    attention: sent.attention && {
      ...sent.attention,
      maps: bytesOf(sent.attention.maps),
      cell_maps: bytesOf(sent.attention.cell_maps),
    },
    expertColours: sent.experts.map(rgbOf),
    phenomenonColours: sent.phenomena.map(([, colour]) => rgbOf(colour)),
  };
}

function topExpert(routing, step, token) {
  return routing.ids[(step * routing.tokens + token) * routing.top_k];
}

// 0 to 255; 0 where the expert was not chosen.
function expertWeight(routing, step, token, expert) {
  const start = (step * routing.tokens + token) * routing.top_k;
  for (let k = 0; k < routing.top_k; k++) if (routing.ids[start + k] === expert) return routing.weights[start + k];
  return 0;
}

// 0 to 255.
function phenomenonValue(routing, step, token, phenomenon) {
  return routing.maps[(step * routing.phenomena.length + phenomenon) * routing.tokens + token];
}

// The phenomenon with the largest value at a token.
function strongestPhenomenon(routing, step, token) {
  let best = 0;
  for (let p = 1; p < routing.phenomena.length; p++) {
    if (phenomenonValue(routing, step, token, p) > phenomenonValue(routing, step, token, best)) best = p;
  }
  return best;
}

// Of each expert, the share of the clip's tokens where it is the strongest.
function expertShares(routing, step) {
  const shares = new Array(routing.experts.length).fill(0);
  for (let n = 0; n < routing.tokens; n++) shares[topExpert(routing, step, n)] += 1 / routing.tokens;
  return shares;
}

// The same for each latent frame's tokens.
function expertSharesOverTime(routing, step) {
  const perFrame = routing.height * routing.width;
  return Array.from({ length: routing.frames }, (_, t) => {
    const shares = new Array(routing.experts.length).fill(0);
    for (let i = 0; i < perFrame; i++) shares[topExpert(routing, step, t * perFrame + i)] += 1 / perFrame;
    return shares;
  });
}

// Of each phenomenon, the largest value in the clip, 0 to 1.
function phenomenonPeaks(routing, step) {
  return routing.phenomena.map((_, p) => {
    let peak = 0;
    for (let n = 0; n < routing.tokens; n++) peak = Math.max(peak, phenomenonValue(routing, step, n, p));
    return peak / 255;
  });
}

// The strongest expert's weight less the second's, 0 to 255: to within one of 255, as each weight was rounded.
function margin(routing, step, token) {
  const start = (step * routing.tokens + token) * routing.top_k;
  return routing.top_k > 1 ? Math.max(0, routing.weights[start] - routing.weights[start + 1]) : routing.weights[start];
}

// The levels, 0 to 255, that entropy or margin shows, of all tokens.
function levelsOf(routing, mode, step) {
  return mode === "entropy" ? routing.entropy : Uint8Array.from({ length: routing.tokens }, (_, n) => margin(routing, step, n));
}

// --- what the backbone attended to: D recorded steps, W words, C cells; see prophy/routing/attention.py --------------

// The recorded step nearest to a kept step of the routing.
function attentionStep(routing, step) {
  const { steps } = routing.attention;
  const away = steps.map((number) => Math.abs(number - routing.steps[step]));
  return away.indexOf(Math.min(...away));
}

// How much a token attends to a word, 0 to 255 of the word's peak.
function wordLevel(routing, recorded, word, token) {
  const { words, maps } = routing.attention;
  return maps[(recorded * words.length + word) * routing.tokens + token];
}

// Of each word, the share of their attention that some tokens give to it, on average.
function wordShares(routing, recorded, tokens) {
  const { words, peaks } = routing.attention;
  return words.map((_, w) => {
    const levels = tokens.reduce((sum, token) => sum + wordLevel(routing, recorded, w, token), 0);
    return (peaks[w] * levels) / (255 * tokens.length);
  });
}

// Of each word, the largest share that a token gives to it.
function wordPeaks(routing, recorded) {
  const { words, peaks } = routing.attention;
  return words.map((_, w) => {
    let largest = 0;
    for (let n = 0; n < routing.tokens; n++) largest = Math.max(largest, wordLevel(routing, recorded, w, n));
    return (peaks[w] * largest) / 255;
  });
}

function cellOf(routing, token) {
  const { side, cells } = routing.attention;
  const perFrame = routing.width * routing.height;
  const row = Math.floor((token % perFrame) / routing.width);
  const column = token % routing.width;
  return (Math.floor(token / perFrame) * cells[1] + Math.floor(row / side)) * cells[2] + Math.floor(column / side);
}

// Where some tokens look: of each cell, the share of their attention that it gets, on average.
function attendedFrom(routing, tokens) {
  const { cell_maps: maps, cell_peaks: peaks, cells } = routing.attention;
  const count = cells[0] * cells[1] * cells[2];
  const from = [...new Set(tokens.map((token) => cellOf(routing, token)))];
  const shares = new Float32Array(count);
  for (const cell of from) {
    for (let c = 0; c < count; c++) shares[c] += (peaks[cell] * maps[cell * count + c]) / (255 * from.length);
  }
  return shares;
}

// Of each latent frame, the share of the attention that goes there.
function attendedOverTime(routing, shares) {
  const perFrame = shares.length / routing.frames;
  return Array.from({ length: routing.frames }, (_, t) =>
    shares.subarray(t * perFrame, (t + 1) * perFrame).reduce((sum, share) => sum + share, 0),
  );
}

// The tokens of a region at a latent frame.
function tokensOf(routing, latent, { rows, columns }) {
  const found = [];
  for (let row = rows[0]; row <= rows[1]; row++) {
    for (let column = columns[0]; column <= columns[1]; column++) found.push(tokenAt(routing, latent, row, column));
  }
  return found;
}

// The level, 0 to 255, of a token in the mode words: of the chosen word's map, or of where the chosen tokens look.
function attentionLevel(routing, shown, token) {
  if (!routing.attention) return 0;
  if (!shown.attended) return wordLevel(routing, attentionStep(routing, shown.step), shown.word, token);
  return Math.round((255 * shown.attended[cellOf(routing, token)]) / shown.most);
}

// RGBA of one latent frame's tokens, row by row: what `shown` = {mode, expert, phenomenon, step, opacity} lays over it.
// words takes `word` besides, or `attended` (see attendedFrom) with the largest of them, `most`.
// top1, entropy, margin and words tint every token alike; expert and phenomenon tint a token the more, the stronger it is
// there; phenomena does so in the colour of the token's strongest, over a greyed picture; off tints none.
function cellColours(routing, shown, latent) {
  const perFrame = routing.height * routing.width;
  const rgba = new Uint8ClampedArray(4 * perFrame);
  const { mode, step, opacity } = shown;
  if (mode === "off" || (mode === "words" && !routing.attention)) return rgba;
  for (let i = 0; i < perFrame; i++) {
    const token = latent * perFrame + i;
    let colours = CIVIDIS;
    let at = 0;
    let strength = 255;
    if (mode === "phenomena") {
      const strongest = strongestPhenomenon(routing, step, token);
      colours = routing.phenomenonColours[strongest];
      strength = phenomenonValue(routing, step, token, strongest);
    } else if (mode === "top1") {
      colours = routing.expertColours[topExpert(routing, step, token)];
    } else if (mode === "expert") {
      colours = routing.expertColours[shown.expert];
      strength = expertWeight(routing, step, token, shown.expert);
    } else if (mode === "phenomenon") {
      colours = routing.phenomenonColours[shown.phenomenon];
      strength = phenomenonValue(routing, step, token, shown.phenomenon);
    } else if (mode === "words") {
      at = 3 * attentionLevel(routing, shown, token);
    } else {
      at = 3 * (mode === "entropy" ? routing.entropy[token] : margin(routing, step, token));
    }
    rgba[4 * i] = colours[at];
    rgba[4 * i + 1] = colours[at + 1];
    rgba[4 * i + 2] = colours[at + 2];
    rgba[4 * i + 3] = Math.round(strength * opacity);
  }
  return rgba;
}

// --- tokens and regions: {rows: [first, last], columns: [first, last]}, the last included; a token is a region of one --

// The cell under a point of the picture; x and y from 0 to 1, and what lies outside belongs to the nearest edge.
function cellAt(routing, x, y) {
  const nearest = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  return { row: nearest(y, routing.height), column: nearest(x, routing.width) };
}

function regionBetween(a, b) {
  return {
    rows: [Math.min(a.row, b.row), Math.max(a.row, b.row)],
    columns: [Math.min(a.column, b.column), Math.max(a.column, b.column)],
  };
}

function isToken({ rows, columns }) {
  return rows[0] === rows[1] && columns[0] === columns[1];
}

// The region moved by whole cells, as far as the picture goes.
function movedRegion(routing, { rows, columns }, down, right) {
  const moved = ([first, last], by, count) => {
    const step = Math.min(count - 1 - last, Math.max(-first, by));
    return [first + step, last + step];
  };
  return { rows: moved(rows, down, routing.height), columns: moved(columns, right, routing.width) };
}

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }; // down, right

function centreOf(routing) {
  const centre = cellAt(routing, 0.5, 0.5);
  return regionBetween(centre, centre);
}

function tokenAt(routing, latent, row, column) {
  return (latent * routing.height + row) * routing.width + column;
}

// Of each expert, its mean weight over a region's tokens, 0 to 1. An expert that was not chosen somewhere counts 0 there.
function regionWeights(routing, step, latent, rows, columns) {
  const sums = new Array(routing.experts.length).fill(0);
  for (let row = rows[0]; row <= rows[1]; row++) {
    const first = (step * routing.tokens + tokenAt(routing, latent, row, columns[0])) * routing.top_k;
    const end = first + (columns[1] - columns[0] + 1) * routing.top_k;
    for (let i = first; i < end; i++) sums[routing.ids[i]] += routing.weights[i];
  }
  const tokens = (rows[1] - rows[0] + 1) * (columns[1] - columns[0] + 1);
  return sums.map((sum) => sum / (255 * tokens));
}

// One array of experts' mean weights for each latent frame, at one step.
function regionOverTime(routing, step, rows, columns) {
  return Array.from({ length: routing.frames }, (_, t) => regionWeights(routing, step, t, rows, columns));
}

// One array of experts' mean weights for each kept step, at one latent frame.
function regionOverSteps(routing, latent, rows, columns) {
  return routing.steps.map((_, d) => regionWeights(routing, d, latent, rows, columns));
}

// [expert, weight] of every expert with a weight, largest first.
function ranked(weights) {
  const found = weights.map((weight, expert) => [expert, weight]).filter(([, weight]) => weight > 0);
  return found.sort((a, b) => b[1] - a[1]);
}

// A mean weight as it was sent: of a token a whole number of 255.
function byteText(weight) {
  return String(Math.round(255000 * weight) / 1000);
}

// What the recorded experts leave of 1: only the chosen ones are recorded.
function othersWeight(weights) {
  return Math.max(0, 1 - weights.reduce((sum, weight) => sum + weight, 0));
}

function weightsText(weights) {
  const named = ranked(weights).map(([expert, weight]) => `expert ${expert} ${weight.toFixed(3)}`);
  return [...named, `others ${othersWeight(weights).toFixed(3)}`].join(", ");
}

// The video frames that a latent frame covers, counted from 1 as everywhere on the page: "frames 2–5".
function framesText(latent, temporal) {
  const [first, last] = [1 + firstVideoFrame(latent, temporal), 1 + temporal * latent];
  return first === last ? `frame ${first}` : `frames ${first}–${last}`;
}

function regionTitle({ rows, columns }) {
  if (isToken({ rows, columns })) return `Token at row ${rows[0]}, column ${columns[0]}`;
  return `Region of rows ${rows.join("–")}, columns ${columns.join("–")}`;
}

// An expert as lists name it: its number, and what it was measured to do, if that is known.
function expertName(routing, expert) {
  const name = routing.names[expert];
  return name ? `Expert ${expert}: ${name}` : `Expert ${expert}`;
}

// A share of attention, which is small: "0.42 %".
const shareText = (share) => `${(100 * share).toFixed(share < 0.1 ? 2 : 0)} %`;

// What a token shows in a mode, in a few words; every mode but `expert` names the strongest expert too.
function tokenLabel(routing, shown, token) {
  const value = (byte) => (byte / 255).toFixed(2);
  if (!routing.experts.length && !routing.attention) {
    const [name] = routing.phenomena[shown.phenomenon];
    return `${name} · ${value(phenomenonValue(routing, shown.step, token, shown.phenomenon))}`;
  }
  const named = shown.mode === "words" && routing.attention;
  if (named && shown.attended) return `gets ${shareText(shown.attended[cellOf(routing, token)])} of the attention`;
  if (named) {
    const share = wordShares(routing, attentionStep(routing, shown.step), [token])[shown.word];
    return `“${routing.attention.words[shown.word]}” · ${shareText(share)}`;
  }
  if (!routing.experts.length) return "";
  const expert = shown.mode === "expert" ? shown.expert : topExpert(routing, shown.step, token);
  const weight = `expert ${expert} · ${value(expertWeight(routing, shown.step, token, expert))}`;
  if (shown.mode === "phenomenon" || shown.mode === "phenomena") {
    const p = shown.mode === "phenomenon" ? shown.phenomenon : strongestPhenomenon(routing, shown.step, token);
    return `${routing.phenomena[p][0]} · ${value(phenomenonValue(routing, shown.step, token, p))}, ${weight}`;
  }
  if (shown.mode === "entropy") return `entropy · ${value(routing.entropy[token])}, ${weight}`;
  if (shown.mode === "margin") return `margin · ${value(margin(routing, shown.step, token))}, ${weight}`;
  return weight;
}

// What the server lays over a run's frames so that a file shows what is on show: arguments of its export. `chosen`: the
// region whose tokens look, {at, rows, columns}; nothing is laid over a clip where nothing is on show.
function viewToSave(routing, shown, chosen) {
  const { mode, opacity } = shown;
  if (!routing || mode === "off" || (mode === "words" && !routing.attention)) return { opacity: 0 };
  if (mode === "words" && shown.attended) {
    return { mode: "looks", region: [chosen.at, ...chosen.rows, ...chosen.columns], opacity };
  }
  if (mode === "words") {
    const step = routing.attention.steps[attentionStep(routing, shown.step)];
    return { mode, index: shown.word, step, opacity };
  }
  const index = { expert: shown.expert, phenomenon: shown.phenomenon }[mode];
  // Behind the small pictures of all experts stand all of them.
  return { mode: mode === "all" ? "top1" : mode, index, step: routing.steps[shown.step], opacity };
}

// --- the address bar ---------------------------------------------------------------------------------------------

const VIEWS = ["phenomena", "phenomenon", "top1", "expert", "all", "words", "entropy", "margin", "off"];
const WORDS_VIEWS = ["words", "off"]; // of a clip without a branch, of which attention alone was recorded
const idOf = (name) => name.replaceAll(" ", "_");

// What the address says of a run on show, as {name: text}; `frame` is null while it plays. Frames and steps count from 1.
function addressOf(run, routing, shown, frame) {
  const parts = { run };
  if (routing) {
    parts.view = shown.mode;
    if (shown.mode === "expert") parts.expert = shown.expert;
    if (shown.mode === "phenomenon") parts.phenomenon = idOf(routing.phenomena[shown.phenomenon][0]);
    if (shown.mode === "words" && routing.attention) parts.word = shown.word + 1;
    if (shown.step < routing.steps.length - 1) parts.step = routing.steps[shown.step];
    parts.opacity = Math.round(100 * shown.opacity);
  }
  if (frame !== null) parts.frame = frame + 1;
  return parts;
}

function linkTo(page, parts) {
  return `${page}?${new URLSearchParams(parts)}`;
}

// What of an address, which anyone may have typed, a run has: the change to what is shown, and the frame or null. A link
// that names an expert or a phenomenon and no view shows that one. `views`: those that there are.
function readAddress(search, routing, frames, views = VIEWS) {
  const asked = new URLSearchParams(search);
  const whole = (name) => (/^\d{1,6}$/.test(asked.get(name) || "") ? Number(asked.get(name)) : null);
  const number = whole("frame");
  const frame = number !== null && number >= 1 && number <= frames ? number - 1 : null;
  if (!routing) return { change: {}, frame };
  const change = {};
  const expert = whole("expert");
  const phenomenon = routing.phenomena.findIndex(([name]) => idOf(name) === asked.get("phenomenon"));
  if (expert !== null && expert < routing.experts.length) Object.assign(change, { mode: "expert", expert });
  else if (phenomenon >= 0) Object.assign(change, { mode: "phenomenon", phenomenon });
  const view = asked.get("view");
  const isAlone = view === "expert" || view === "phenomenon";
  if (views.includes(view) && (!isAlone || change.mode === view)) change.mode = view;
  const word = whole("word");
  if (change.mode === "words" && word >= 1 && word <= (routing.attention?.words.length ?? 0)) change.word = word - 1;
  const step = routing.steps.indexOf(whole("step"));
  if (step >= 0) change.step = step;
  const opacity = whole("opacity");
  if (opacity !== null && opacity <= 100) change.opacity = opacity / 100;
  return { change, frame };
}

if (typeof module !== "undefined") {
  module.exports = {
    CIVIDIS,
    addressOf,
    attentionStep,
    byteText,
    bytesOf,
    cellAt,
    cellColours,
    cellOf,
    expertName,
    expertShares,
    expertSharesOverTime,
    expertWeight,
    firstVideoFrame,
    framesText,
    isToken,
    latentFrame,
    levelsOf,
    linkTo,
    attendedFrom,
    attendedOverTime,
    readAddress,
    margin,
    movedRegion,
    othersWeight,
    phenomenonPeaks,
    phenomenonValue,
    ranked,
    readRouting,
    regionBetween,
    regionOverSteps,
    regionOverTime,
    regionTitle,
    regionWeights,
    rgbOf,
    seekTime,
    strongestPhenomenon,
    tokenAt,
    tokenLabel,
    tokensOf,
    topExpert,
    videoFrame,
    viewToSave,
    weightsText,
    wordPeaks,
    wordShares,
  };
}
