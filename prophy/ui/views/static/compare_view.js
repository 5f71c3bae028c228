// Two runs, one player. gradio gives `element`, `props`, `trigger` and `watch`; routing.js, parts.js, stacked_bars.js,
// compare.js and download.js stand before this text. Going back to two other runs triggers 'revisit' with their ids.
//
// No <video> plays here: two of them drift, however often they are corrected, and lose each other at every loop. Each
// clip is read once, frame by frame, into memory, and one clock draws the same number from both: they cannot come apart.
// A clip too large for memory is held smaller (heldSize), which on half a page does not show; it is never let loose.

const root = element.querySelector(".pp-compare");
const find = (selector) => root.querySelector(selector);
const slots = ["a", "b"].map((name) => ({
  head: find(`.pp-side.is-${name}`),
  stage: find(`.pp-stage.is-${name}`),
  inspected: find(`.pp-inspected.is-${name}`),
  canvas: find(`.pp-stage.is-${name} canvas`),
  frameKey: `frame${name.toUpperCase()}`, // data-frame-a and data-frame-b: what was drawn last
  runKey: `run${name.toUpperCase()}`,
}));
const pad = find(".pp-wipe");
const divider = find(".pp-divider");
const playButton = find(".pp-play");
const scrub = find(".pp-scrub");
const curve = find(".pp-curve");
const time = find(".pp-time");
const list = find(".pp-list");
const legend = find(".pp-legend");
const opacity = find(".pp-opacity");
const stepSlider = find(".pp-step");
const modes = [...root.querySelectorAll("[data-mode]")];
const inspect = find(".pp-inspect");
const layouts = [...root.querySelectorAll(".pp-modes [data-layout]")];

const TAB = "compare"; // that this view stands in
const DRAG = 6; // pixels: a pointer that moved less has clicked
const PRESENTED_MS = 250; // a hidden tab presents no frames: after this, `seeked` alone is believed

let pair = null; // the value
let sides = []; // of slot A and slot B: { name, run, label, routing, pictures }
let levels = null; // of the difference
let opened = 0;
let isReady = false;
let isPlaying = false;
let resumes = false;
let isAway = false; // another tab is on show
let ticking = 0; // the animation frame that was asked for
let started = 0; // when frame 0 of the loop was due, on the clock of requestAnimationFrame
let frame = 0;
let wipe = 50; // percent from the left
let positions = 1; // of the step slider
let order = [];
// What is laid over the clips. Mode and opacity outlive a pair; the rest belongs to it.
const shown = { mode: "phenomena", expert: 0, phenomenon: 0, position: 0, opacity: opacities.grey };
let selected = null; // the region on show in the panel below: {rows, columns}
let drag = null; // the pointer is down on a wipe: {x, y, isDrag}
let addressed = false; // the address bar follows; not while an address is being obeyed
let pointed = null; // what the pointer's row would show: {mode, expert} or {mode, phenomenon}

const drawn = () => (pointed ? { ...shown, ...pointed, opacity: opacities[groundOf(pointed.mode)] } : shown);

const routed = () => sides.filter((side) => side.routing);
const aRouting = () => routed()[0]?.routing ?? null; // tokens lie alike on both sides

// --- reading the clips ------------------------------------------------------------------------------------------

function once(video, name) {
  return new Promise((resolve, reject) => {
    video.addEventListener(name, resolve, { once: true });
    video.addEventListener("error", () => reject(new Error("the clip cannot be decoded")), { once: true });
  });
}

// Resolves when the browser presents this very frame, by its own time. `stop` ends the wait.
function presentation(video, run, wanted) {
  if (!video.requestVideoFrameCallback) return { isThere: Promise.resolve(), stop: () => {} };
  let handle;
  const isThere = new Promise((resolve) => {
    const onFrame = (_, metadata) => {
      if (videoFrame(metadata.mediaTime, run.fps, run.frames) === wanted) resolve();
      else handle = video.requestVideoFrameCallback(onFrame);
    };
    handle = video.requestVideoFrameCallback(onFrame);
  });
  return { isThere, stop: () => video.cancelVideoFrameCallback(handle) };
}

async function goTo(video, run, wanted) {
  const seeked = once(video, "seeked");
  const { isThere, stop } = presentation(video, run, wanted);
  video.currentTime = seekTime(wanted, run.fps);
  await seeked;
  await Promise.race([isThere, new Promise((resolve) => setTimeout(resolve, PRESENTED_MS))]);
  stop();
}

async function readPictures({ run, pictures }, isCurrent, onPicture) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, preload: "auto" });
  const source = URL.createObjectURL(new Blob([bytesOf(run.video)], { type: "video/mp4" }));
  try {
    const loaded = once(video, "loadeddata");
    video.src = source;
    await loaded;
    const [width, height] = heldSize(video.videoWidth, video.videoHeight, run.frames);
    const size = width < video.videoWidth ? { resizeWidth: width, resizeHeight: height, resizeQuality: "medium" } : {};
    for (let f = 0; f < run.frames; f++) {
      await goTo(video, run, f);
      const picture = await createImageBitmap(video, size);
      if (!isCurrent()) {
        picture.close();
        return;
      }
      pictures.push(picture);
      onPicture();
    }
  } finally {
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(source);
  }
}

// --- the pictures -----------------------------------------------------------------------------------------------

const cells = document.createElement("canvas");

function cellsOf(side, latent) {
  const { routing } = side;
  const laid = drawn();
  if (!routing || laid.mode === "off") return null;
  if (laid.mode === "difference") {
    return levels && differenceColours(levels, CIVIDIS, latent, routing.width * routing.height, shown.opacity);
  }
  return cellColours(routing, { ...laid, step: stepOf(side) }, latent);
}

function paint(slot, side) {
  const picture = side.pictures[frame];
  const { canvas } = slot;
  if (!picture || !canvas.width) return;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = true;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  root.dataset[slot.frameKey] = frame;
  if (root.dataset.layout === "amplified") amplify(context);
  else layOver(context, side);
  if (selected && aRouting()) outline(context, aRouting(), selected, 2);
}

function layOver(context, side) {
  const { canvas } = context;
  const laid = drawn();
  if (side.routing && groundOf(laid.mode) === "grey" && laid.opacity > 0) greyOut(context);
  const colours = side.routing ? cellsOf(side, latentFrame(frame, side.routing.temporal)) : null;
  if (colours) {
    cells.width = side.routing.width;
    cells.height = side.routing.height;
    cells.getContext("2d").putImageData(new ImageData(colours, cells.width, cells.height), 0, 0);
    context.imageSmoothingEnabled = false; // a token is one flat cell: what is shown is what was recorded
    context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  }
}

// What is on the canvas less the other side's picture, either way round, doubled as often as it takes to be seen.
function amplify(context) {
  const { canvas } = context;
  const other = sides[1].pictures[frame];
  if (!other) return;
  context.globalCompositeOperation = "difference";
  context.drawImage(other, 0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "lighter";
  for (let i = 0; i < doublings(pair.pixels); i++) context.drawImage(canvas, 0, 0);
  context.globalCompositeOperation = "source-over";
}

function draw() {
  slots.forEach((slot, i) => sides[i] && paint(slot, sides[i]));
}

function fitCanvases() {
  // Hidden, it leaves the processor to the model.
  const isHidden = !slots[0].stage.clientWidth;
  if (isHidden && isPlaying) {
    resumes = true;
    setPlaying(false);
  } else if (!isHidden && resumes) {
    resumes = false;
    setPlaying(true);
  }
  if (isHidden) {
    isAway = ![null, TAB].includes(tabOnShow());
    return;
  }
  if (isAway && !isOfPair(location.search)) bar.add(); // until now it was the routing view's
  isAway = false;
  const ratio = window.devicePixelRatio || 1;
  for (const { stage, canvas } of slots) {
    const [width, height] = [stage.clientWidth, stage.clientHeight].map((side) => Math.round(side * ratio));
    if (width === canvas.width && height === canvas.height) continue;
    canvas.width = width; // empties it
    canvas.height = height;
  }
  draw();
}

function showFrame(next) {
  const { frames } = pair.a;
  frame = next;
  scrub.value = frame;
  scrub.setAttribute("aria-valuetext", `frame ${frame + 1} of ${frames}`);
  if (isReady) time.textContent = `${frame + 1} / ${frames}`;
  [...curve.children].forEach((mark, f) => mark.classList.toggle("is-on", f === frame));
  const here = `${(255 * pair.pixels[frame]).toFixed(1)} of 255`;
  find(".pp-differs").textContent = `Bars: how much the two pictures differ; in this frame ${here}`;
  summarise();
  fillInspect();
  draw();
}

// --- the player -------------------------------------------------------------------------------------------------

function setPlaying(next) {
  const begins = next && !isPlaying && isReady;
  if (isPlaying !== (next && isReady)) writeAddress();
  isPlaying = next && isReady;
  showOnButton(playButton, isPlaying);
  if (!isPlaying) cancelAnimationFrame(ticking);
  if (begins) {
    started = performance.now() - (1000 * frame) / pair.a.fps;
    ticking = requestAnimationFrame(tick);
  }
}

function tick(now) {
  const next = loopFrame(now - started, pair.a.fps, pair.a.frames);
  if (next !== frame) showFrame(next);
  ticking = requestAnimationFrame(tick);
}

function togglePlay() {
  setPlaying(!isPlaying);
}

function seek(next) {
  if (!isReady) return;
  setPlaying(false);
  showFrame(Math.min(pair.a.frames - 1, Math.max(0, next)));
  writeAddress();
}

// --- layouts and the divider ------------------------------------------------------------------------------------

function chooseLayout(layout) {
  root.dataset.layout = layout;
  draw();
  layouts.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.layout === layout)));
  writeAddress();
}

function moveDivider(next) {
  wipe = next;
  find(".pp-sides").style.setProperty("--wipe", wipe);
  divider.setAttribute("aria-valuenow", Math.round(wipe));
  divider.setAttribute("aria-valuetext", `A on the left ${Math.round(wipe)} %`);
  writeAddress();
}

function dragDivider(event) {
  const box = pad.getBoundingClientRect();
  moveDivider(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
}

// --- the panel --------------------------------------------------------------------------------------------------

const CAPTIONS = {
  ...OVERLAYS,
  off: "The two clips as they were made.",
  difference:
    "How far apart the two runs' experts are at each token, the same on both sides: Jensen-Shannon distance of their weights, averaged over all denoising steps.",
};

// What the ends of the scale mean, in the modes that show levels.
const SCALES = {
  entropy: ["0 one expert has it all", "1 all have the same"],
  margin: ["0 a tie", "1 one expert has it all"],
  difference: ["0 the same experts", "1 none in common"],
};

function stepOf(side) {
  return stepAt(shown.position, positions, side.routing.steps.length);
}

function choose(change) {
  if ("opacity" in change) opacities[groundOf(change.mode || shown.mode)] = change.opacity;
  Object.assign(shown, change);
  const { mode } = shown;
  shown.opacity = opacities[groundOf(mode)];
  pointed = null;
  modes.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mode === groupOf(mode))));
  find(".pp-caption").textContent = CAPTIONS[mode];
  opacity.value = Math.round(100 * shown.opacity);
  opacity.nextElementSibling.textContent = `${opacity.value} %`;
  opacity.disabled = mode === "off";
  const isOverSteps = mode === "difference" || mode === "entropy";
  stepSlider.disabled = mode === "off" || isOverSteps;
  stepSlider.nextElementSibling.textContent = isOverSteps ? "all" : stepName();
  const ends = SCALES[mode];
  legend.hidden = !ends;
  find(".pp-table").hidden = Boolean(ends) || mode === "off";
  if (ends) [...find(".pp-legend-ends").children].forEach((end, i) => (end.textContent = ends[i]));
  if (routed().length) fillList();
  summarise();
  fillInspect();
  draw();
  writeAddress();
}

// --- a token, on both sides --------------------------------------------------------------------------------------

function select(region) {
  const hadFocus = inspect.contains(document.activeElement);
  selected = region;
  inspect.hidden = !selected;
  if (!selected && hadFocus) root.focus({ preventScroll: true });
  fillInspect();
  draw();
}

function fillInspect() {
  const routing = aRouting();
  if (!selected || !routing) return;
  const latent = latentFrame(frame, routing.temporal);
  const here = framesText(latent, routing.temporal);
  inspect.querySelector("h3").textContent = `${regionTitle(selected)}, ${here}`;
  const level = levels && regionLevel(levels, routing, latent, selected).toFixed(2);
  const apart = levels ? `${level} apart here, over all denoising steps: 0 the same experts, 1 none in common.` : "";
  inspect.querySelector(".pp-apart").textContent = apart;
  slots.forEach((slot, i) => fillInspected(slot.inspected, sides[i], "AB"[i], latent));
}

function fillInspected(part, side, name, latent) {
  const { routing, label } = side;
  const title = label ? `${name} · ${label}` : name;
  part.querySelector("h4").textContent = routing ? title : `${title}: made without a physical branch, so no experts`;
  for (const node of part.querySelectorAll("figure, ul")) node.hidden = !routing;
  if (!routing) return;
  const { rows, columns } = selected;
  const step = stepOf(side);
  const [overTime, overSteps] = part.querySelectorAll("figure");
  const colours = routing.experts;
  if (isOutdated(overTime, rows, columns, step)) {
    fillPlot(overTime, {
      bars: regionOverTime(routing, step, rows, columns),
      nameOf: (t) => framesText(t, routing.temporal),
      title: `Over the clip, at denoising step ${routing.steps[step]}`,
      colours,
      onChoose: (t) => seek(firstVideoFrame(t, routing.temporal)),
    });
  }
  if (isOutdated(overSteps, rows, columns, latent)) {
    fillPlot(overSteps, {
      bars: regionOverSteps(routing, latent, rows, columns),
      nameOf: (d) => `step ${routing.steps[d]}`,
      title: `Over denoising, at ${framesText(latent, routing.temporal)}`,
      colours,
      onChoose: (d) => choosePosition(positionOf(d, positions, routing.steps.length)),
    });
  }
  markBar(overTime.querySelector("svg"), latent);
  markBar(overSteps.querySelector("svg"), step);
  fillNumbers(part.querySelector("ul"), routing, regionWeights(routing, step, latent, rows, columns));
}

// A click chooses a token where there is a routing; else it plays.
function onClick(stage, event) {
  const routing = aRouting();
  if (!routing) {
    togglePlay();
    return;
  }
  const cell = cellUnder(routing, stage, event);
  select(regionBetween(cell, cell));
}

// --- a link ------------------------------------------------------------------------------------------------------

const hasAddress = Boolean(element.closest("#compare-view"));

function address(at) {
  const side = routed()[0];
  const rest = addressOf(null, side ? side.routing : null, { ...shown, step: side ? stepOf(side) : 0 }, at);
  const [a, b] = sides.map(({ run }) => run.id);
  return linkTo(location.origin + location.pathname, pairAddress(a, b, root.dataset.layout, wipe, rest));
}

const bar = addressBar(TAB, () => (addressed && sides.length ? address(isPlaying ? null : frame) : null));

function writeAddress() {
  if (pair && hasAddress && addressed) bar.soon();
}

// Back and forward: the same two runs as they were, or two others from the server.
function revisit() {
  if (!hasAddress || !isOfPair(location.search)) return;
  toTab(TAB);
  if (pair && namesPair(location.search, ...sides.map(({ run }) => run.id))) {
    obeyAddress();
    return;
  }
  addressed = false; // the address is another pair's until that is here
  const asked = new URLSearchParams(location.search);
  trigger("revisit", { a: asked.get("a"), b: asked.get("b") });
}

// Shows what the address says of the two clips; returns the frame that it names, or null. Nothing is written meanwhile.
function obeyAddress() {
  addressed = false;
  const { layout, wipe: at } = readLayout(location.search);
  if (layout) chooseLayout(layout);
  if (at !== null) moveDivider(at);
  const { change, frame: asked } = readAddress(location.search, aRouting(), pair.a.frames, COMPARED_VIEWS);
  const { step, ...rest } = change;
  if (rest.mode === "difference" && !levels) delete rest.mode;
  if (aRouting()) {
    choose(rest);
    const kept = aRouting().steps.length;
    choosePosition(positionOf(step ?? kept - 1, positions, kept));
  }
  if (asked !== null) seek(asked);
  addressed = true;
  return asked;
}

function listRow(colour, name, onClick) {
  const row = make("button", "pp-row");
  row.type = "button";
  row.style.setProperty("--colour", colour);
  const meters = make("span", "pp-meters");
  meters.append(make("i", "pp-meter"), make("i", "pp-meter"));
  row.append(make("i", "pp-swatch"), make("span", "pp-name", name), meters, make("span", "pp-share"), make("span", "pp-share"));
  row.addEventListener("click", onClick);
  return row;
}

// Rows are made once per kind and refilled in place, so that the keyboard's focus stays where it is.
function fillList() {
  const isPhenomenon = isOfPhenomena(shown.mode);
  const { experts, phenomena } = routed()[0].routing;
  const kind = isPhenomenon ? "phenomenon" : "expert";
  if (list.dataset.kind !== kind) {
    list.dataset.kind = kind;
    list.setAttribute("aria-label", isPhenomenon ? "Phenomena" : "Refinement experts");
    list.replaceChildren(
      ...(isPhenomenon ? order : experts.map((_, e) => e)).map((i) => {
        const row = isPhenomenon
          ? listRow(phenomena[i][1], phenomena[i][0], () => choosePhenomenon(i))
          : listRow(experts[i], expertName(routed()[0].routing, i), () => chooseExpert(i));
        const alone = isPhenomenon ? { mode: "phenomenon", phenomenon: i } : { mode: "expert", expert: i };
        whenPointedAt(row, (isPointed) => point(isPointed ? alone : null));
        row.dataset.index = i;
        return row;
      }),
    );
  }
  const values = sides.map((side) => {
    if (!side.routing) return null;
    return isPhenomenon ? phenomenonPeaks(side.routing, stepOf(side)) : expertShares(side.routing, stepOf(side));
  });
  for (const row of list.children) {
    const i = Number(row.dataset.index);
    const isOn = shown.mode === kind && i === shown[kind];
    row.setAttribute("aria-pressed", String(isOn));
    row.classList.toggle("is-absent", isPhenomenon && !values.some((value) => value && value[i] >= SHOWN_PEAK));
    const [meters, ...shares] = [...row.children].slice(2);
    values.forEach((value, side) => {
      meters.children[side].style.setProperty("--share", value ? value[i] : 0);
      shares[side].textContent = value ? percent(value[i]) : "–";
    });
  }
}

function point(next) {
  pointed = next;
  draw();
}

// Choosing what is on show again returns to all.
function choosePhenomenon(phenomenon) {
  const isAgain = shown.mode === "phenomenon" && shown.phenomenon === phenomenon;
  choose(isAgain ? { mode: "phenomena" } : { mode: "phenomenon", phenomenon });
}

function chooseExpert(expert) {
  if (shown.mode === "expert" && shown.expert === expert) choose({ mode: "top1" });
  else choose({ mode: "expert", expert });
}

function choosePosition(position) {
  stepSlider.value = position;
  choose({ position });
}

// Where the two runs kept other steps, the share of the way.
function stepName() {
  const names = routed().map((side) => `${side.routing.steps[stepOf(side)]} of ${side.routing.total_steps}`);
  if (names.every((name) => name === names[0])) return names[0] || "";
  return percent(positions === 1 ? 1 : shown.position / (positions - 1));
}

// The levels on show: one set for both sides, or one for each that has a routing.
function levelsOnShow() {
  if (shown.mode === "difference") return levels ? [{ name: "", levels, routing: sides[0].routing }] : [];
  return sides.flatMap((side, i) =>
    side.routing ? [{ name: `${"AB"[i]}: `, levels: levelsOf(side.routing, shown.mode, stepOf(side)), routing: side.routing }] : [],
  );
}

function summarise() {
  if (!SCALES[shown.mode]) return;
  find(".pp-summary").replaceChildren(
    ...levelsOnShow().map(({ name, levels, routing }) => {
      const perFrame = routing.width * routing.height;
      const latent = latentFrame(frame, routing.temporal);
      const here = levelSummary(levels.subarray(latent * perFrame, (latent + 1) * perFrame));
      const all = levelSummary(levels);
      return make(
        "span",
        "",
        `${name}mean ${here.mean.toFixed(2)} in ${framesText(latent, routing.temporal)}, ${all.mean.toFixed(2)} in the clip; largest ${all.largest.toFixed(2)}.`,
      );
    }),
  );
}

function fillBars() {
  const weights = sides.map((side) => side.routing && side.routing.semantic);
  const pairs = pairedBars(...weights);
  const strongest = weights.map((side, i) => {
    if (!side) return `${"AB"[i]}: no branch`;
    const largest = Math.max(...side);
    return `${"AB"[i]} most: expert ${side.indexOf(largest)}, ${percent(largest)}`;
  });
  find(".pp-semantic-note").textContent =
    `how the branch reads each prompt, A left and B right of a pair; the full part: what one has more. ${strongest.join("; ")}`;
  const bars = find(".pp-bars");
  bars.style.setProperty("--even", 1 / pairs.length / Math.max(...weights.flatMap((side) => side || [])));
  bars.setAttribute("role", "img");
  bars.setAttribute("aria-label", `Weights of ${pairs.length} semantic experts in A and B. ${strongest.join("; ")}`);
  bars.replaceChildren(
    ...pairs.map((both, s) => {
      const bar = make("div", "pp-bar pp-pair");
      bar.title = `semantic expert ${s}: A ${(100 * both[0].weight).toFixed(1)} %, B ${(100 * both[1].weight).toFixed(1)} %`;
      for (const { height, common } of both) {
        const half = make("i");
        half.style.setProperty("--height", height);
        half.style.setProperty("--common", common);
        bar.append(half);
      }
      bar.append(make("span", "", s));
      return bar;
    }),
  );
}

// --- a pair of runs ---------------------------------------------------------------------------------------------

// All that depends on which run stands on which side.
function fillSides() {
  const facts = sides.map((side) => side.run.facts);
  const shared = facts[0].filter((fact) => facts[1].includes(fact));
  find(".pp-shared").textContent = shared.length ? `Both: ${shared.join(" · ")}` : "";
  slots.forEach(({ head, stage, runKey }, i) => {
    const { run, label } = sides[i];
    root.dataset[runKey] = run.id;
    head.querySelector(".pp-side-label").textContent = label ? `${"AB"[i]} · ${label}` : "AB"[i];
    head.querySelector(".pp-prompt").textContent = run.prompt;
    head.querySelector(".pp-facts").textContent = run.facts.filter((fact) => !shared.includes(fact)).join(" · ");
    const unknown = head.querySelector(".pp-unknown");
    unknown.hidden = run.unknown_words.length === 0;
    unknown.textContent = `The model has never seen: ${run.unknown_words.join(", ")}.`;
    stage.style.aspectRatio = run.aspect;
    root.style.setProperty("--aspect", run.aspect);
  });
  const bare = sides.flatMap((side, i) => (side.routing ? [] : ["AB"[i]]));
  root.classList.toggle("is-bare", bare.length === 2);
  find(".pp-bare").hidden = bare.length === 0;
  find(".pp-bare").textContent =
    bare.length === 2
      ? "Both clips were made without a physical branch, so there is no routing to compare."
      : `${bare[0]} was made without a physical branch, so there is no routing to lay over it.`;
  if (bare.length < 2) fillBars();
}

// The form follows, where each side has a field of its own.
function swap() {
  if (!pair) return;
  sides.reverse();
  for (const part of inspect.querySelectorAll("figure")) delete part.dataset.shows;
  fillSides();
  choose({});
  trigger("swap", {});
}

async function save(button) {
  find(".pp-save").open = false;
  const said = find(".pp-copied");
  said.textContent = "making the video …";
  const wrong = await download({ run: sides[0].run.id, beside: sides[1].run.id, what: button.dataset.what });
  said.textContent = wrong || "saved";
  setTimeout(() => (said.textContent = ""), wrong ? 6000 : 1600);
}

function fillRouting() {
  const known = routed();
  positions = Math.min(...known.map((side) => side.routing.steps.length));
  stepSlider.max = positions - 1;
  const last = known.map(({ routing }) => routing.steps.length - 1);
  const shares = expertShares(known[0].routing, last[0]);
  shown.expert = shares.indexOf(Math.max(...shares));
  const peaks = known.map(({ routing }, i) => phenomenonPeaks(routing, last[i]));
  const highest = peaks[0].map((_, p) => Math.max(...peaks.map((side) => side[p])));
  order = [...known[0].routing.offered].sort((a, b) => highest[b] - highest[a]);
  shown.phenomenon = order[0];
  if (shown.mode === "phenomenon") shown.mode = "phenomena";
  delete list.dataset.kind;
}

function setState(state) {
  root.dataset.state = state;
  isReady = state === "ready";
  scrub.disabled = playButton.disabled = !isReady;
}

async function open(next) {
  const turn = ++opened;
  const isCurrent = () => turn === opened;
  setState("empty");
  setPlaying(false);
  resumes = false;
  sides.forEach(({ pictures }) => pictures.forEach((picture) => picture.close()));
  addressed = false;
  select(null);
  [pair, sides, levels, frame] = [next, [], null, 0];
  for (const part of inspect.querySelectorAll("figure")) delete part.dataset.shows;
  find(".pp-link-text").hidden = true;
  for (const { frameKey, runKey } of slots) {
    delete root.dataset[frameKey];
    delete root.dataset[runKey];
  }
  root.hidden = !pair;
  element.querySelector(".pp-empty").hidden = Boolean(pair);
  if (!pair) return;

  sides = ["a", "b"].map((name, i) => {
    const run = pair[name];
    return { run, label: pair.labels[i], routing: run.routing ? readRouting(run.routing) : null, pictures: [] };
  });
  const { frames } = pair.a;
  scrub.max = frames - 1;
  const largest = Math.max(...pair.pixels, 1e-9);
  curve.replaceChildren(
    ...pair.pixels.map((share) => {
      const mark = make("i");
      mark.style.setProperty("--height", share / largest);
      return mark;
    }),
  );
  find(".pp-verdict").textContent = verdict(pair.pixels);
  find("[data-layout=amplified]").textContent = `Difference ×${2 ** doublings(pair.pixels)}`;
  levels = pair.difference ? bytesOf(pair.difference) : null;
  find("[data-mode=difference]").disabled = !levels;
  if (!levels && shown.mode === "difference") shown.mode = "phenomena";
  fillSides();
  if (routed().length) {
    fillRouting();
    choosePosition(positions - 1);
  } else {
    choose({});
  }
  setState("reading");
  showFrame(0);
  // The address may ask for these two, as of a link; else they are news, to come back from.
  const isAsked = hasAddress && namesPair(location.search, pair.a.id, pair.b.id);
  const first = isAsked ? obeyAddress() : null;
  addressed = true;
  if (hasAddress && !isAsked) bar.add();
  fitCanvases();

  const current = sides;
  const onPicture = () => {
    const [read, theirs] = current.map(({ pictures }) => pictures.length);
    time.textContent = `reading ${percent((read + theirs) / (2 * frames))}`;
    if (Math.min(read, theirs) <= 1) draw(); // something to look at meanwhile
  };
  onPicture();
  try {
    await Promise.all(current.map((side) => readPictures(side, isCurrent, onPicture)));
  } catch (error) {
    if (isCurrent()) setState("failed");
    if (isCurrent()) time.textContent = error.message;
    return;
  }
  if (!isCurrent()) return;
  setState("ready");
  showFrame(first ?? 0);
  if (isStill.matches || first !== null) return;
  if (slots[0].stage.clientWidth) setPlaying(true);
  else resumes = true;
}

function onKey(event) {
  if (!pair || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.defaultPrevented || event.target === find(".pp-link-text")) return; // the divider's own keys
  const onControl = event.target.closest("button, input");
  const isSlider = Boolean(onControl) && onControl.tagName === "INPUT";
  const known = routed();
  const key = event.key;
  if (key === " " && !(onControl && onControl.tagName === "BUTTON")) togglePlay();
  else if (key === ",") seek(frame - 1);
  else if (key === ".") seek(frame + 1);
  else if (known.length && /^[0-9]$/.test(key) && Number(key) < known[0].routing.experts.length) chooseExpert(Number(key));
  else if (known.length && "[]".includes(key)) choose({ opacity: opacityAfter(key, shown.opacity) });
  else if (known.length && !selected && key === "Enter" && !onControl) select(centreOf(aRouting()));
  else if (selected && key in ARROWS && !isSlider) select(movedRegion(aRouting(), selected, ...ARROWS[key]));
  else if (selected && key === "Escape") select(null);
  else return;
  event.preventDefault();
}

playButton.addEventListener("click", togglePlay);
slots.forEach(({ stage }) => {
  stage.addEventListener("click", (event) => onClick(stage, event));
  stage.addEventListener("dblclick", () => aRouting() && togglePlay());
});
find(".pp-close").addEventListener("click", () => select(null));
find(".pp-copy").addEventListener("click", () => copyLink(address(frame), find(".pp-link-text"), find(".pp-copied")));
window.addEventListener("popstate", revisit);
scrub.addEventListener("input", () => seek(Number(scrub.value)));
opacity.addEventListener("input", () => choose({ opacity: Number(opacity.value) / 100 }));
stepSlider.addEventListener("input", () => choosePosition(Number(stepSlider.value)));
modes.forEach((button) => button.addEventListener("click", () => choose({ mode: button.dataset.mode })));
layouts.forEach((button) => button.addEventListener("click", () => chooseLayout(button.dataset.layout)));
find(".pp-swap").addEventListener("click", swap);
find(".pp-copy-side").addEventListener("click", () => trigger("copy", { id: sides[0].run.id }));
for (const button of find(".pp-save").querySelectorAll("button")) button.addEventListener("click", () => save(button));
document.addEventListener("click", (event) => {
  if (!find(".pp-save").contains(event.target)) find(".pp-save").open = false;
});
// Over a wipe a drag moves the divider, and a click chooses a token.
pad.addEventListener("pointerdown", (event) => {
  pad.setPointerCapture(event.pointerId);
  drag = { x: event.clientX, y: event.clientY, isDrag: divider.contains(event.target) };
  divider.focus({ preventScroll: true });
  event.preventDefault(); // keeps the focus on the divider
});
pad.addEventListener("pointermove", (event) => {
  if (!drag) return;
  drag.isDrag ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) >= DRAG;
  if (drag.isDrag) dragDivider(event);
});
pad.addEventListener("pointerup", (event) => {
  if (drag && !drag.isDrag) onClick(pad, event);
  drag = null;
});
pad.addEventListener("pointercancel", () => (drag = null));
pad.addEventListener("dblclick", (event) => !divider.contains(event.target) && aRouting() && togglePlay());
divider.addEventListener("keydown", (event) => {
  const next = wipeAfterKey(event.key, wipe);
  if (next === null) return;
  moveDivider(next);
  event.preventDefault();
});
root.addEventListener("keydown", onKey);
new ResizeObserver(fitCanvases).observe(slots[0].stage);
new ResizeObserver(() => root.classList.toggle("is-narrow", root.clientWidth < NARROW)).observe(root);

legend.firstElementChild.style.backgroundImage = scaleGradient();
chooseLayout("side");
moveDivider(50);
watch("value", () => open(props.value));
open(props.value || null);
