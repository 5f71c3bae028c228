// The routing view of one run. gradio gives `element`, `props`, `trigger`, `watch` and `server`; routing.js,
// parts.js, stacked_bars.js and download.js stand before this text. Choosing "Steer and compare" triggers 'steer' with the
// run's id; going back to another run triggers 'revisit' with its id.

const view = element.querySelector(".pp-view");
const find = (selector) => view.querySelector(selector);
const stage = find(".pp-stage");
const video = find("video");
const canvas = find(".pp-canvas");
const playButton = find(".pp-play");
const scrub = find(".pp-scrub");
const latents = find(".pp-latents");
const time = find(".pp-time");
const list = find(".pp-list");
const caption = find(".pp-caption");
const opacity = find(".pp-opacity");
const stepSlider = find(".pp-step");
const modes = [...find(".pp-modes").children];
const multiples = find(".pp-multiples");
const scale = find(".pp-scale");
const label = find(".pp-label");
const inspect = find(".pp-inspect");
const overTime = find(".pp-over-time");
const overSteps = find(".pp-over-steps");
const timeline = find(".pp-timeline");
const attendedFigure = find(".pp-attended");
const copied = find(".pp-copied");
const linkText = find(".pp-link-text");

const DRAG = 6; // pixels: a pointer that moved less has clicked
const TAB = "generate"; // that this view stands in
const MULTIPLE_WIDTH = 112; // pixels of each of the small pictures

let run = null;
let routing = null;
let frame = 0;
let hovered = null; // the cell under the pointer: {row, column}
let selected = null; // the region on show in the panel below: {rows, columns}
let selectedAt = 0; // the latent frame that was on show when it was chosen: in the mode words, where its tokens are
let drag = null; // the pointer is down: {cell, x, y, region}, region once it has moved
let order = []; // phenomena by their peak at the last step: the list keeps this order while the step changes
let source = null;
let resumes = false;
let isAway = false; // another tab is on show
const hasYielded = { to: false, resumes: false }; // to a generation; whether the video plays again after it
let isArriving = Boolean(new URLSearchParams(location.search).get("run")); // the next run is the address's own
let pointed = null; // what the pointer's row would show: {mode, expert} or {mode, phenomenon}
// What is laid over the video. Mode and opacity outlive a run; the rest belongs to it.
// `attended`: in the mode words, where the chosen tokens look, and `most` of it.
const shown = { mode: "phenomena", expert: 0, phenomenon: 0, word: 0, step: 0, opacity: opacities.grey, attended: null, most: 1 };

// What is drawn: a row under the pointer comes before what was chosen, and behind the small pictures stand all experts.
function drawn() {
  if (pointed) return { ...shown, ...pointed, opacity: opacities[groundOf(pointed.mode)] };
  return shown.mode === "all" ? { ...shown, mode: "top1" } : shown;
}

// --- the picture ------------------------------------------------------------------------------------------------

const cells = document.createElement("canvas"); // one pixel a token

function draw() {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!routing) return;
  const latent = latentFrame(frame, routing.temporal);
  const laid = drawn();
  stage.classList.toggle("is-grey", groundOf(laid.mode) === "grey" && laid.opacity > 0);
  if (laid.mode !== "off") {
    const colours = cellColours(routing, laid, latent);
    cells.getContext("2d").putImageData(new ImageData(colours, routing.width, routing.height), 0, 0);
    context.imageSmoothingEnabled = false; // a token is one flat cell: what is shown is what was recorded
    context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  }
  const chosen = (drag && drag.region) || selected;
  if (chosen) outline(context, routing, chosen, 2);
  if (hovered && !drag) outline(context, routing, regionBetween(hovered, hovered), 1);
  canvas.dataset.frame = frame;
  canvas.dataset.latent = latent;
  if (shown.mode === "all") drawMultiples(latent);
}

const backdrop = document.createElement("canvas"); // the video's picture, small and grey

function drawMultiples(latent) {
  if (!multiples.clientWidth || !video.videoWidth) return;
  const width = Math.round(MULTIPLE_WIDTH * (window.devicePixelRatio || 1));
  backdrop.width = width;
  backdrop.height = Math.round(width / run.aspect);
  const ground = backdrop.getContext("2d");
  ground.drawImage(video, 0, 0, backdrop.width, backdrop.height);
  greyOut(ground);
  [...multiples.children].forEach((item, expert) => {
    const small = item.firstElementChild;
    small.width = backdrop.width; // empties it
    small.height = backdrop.height;
    const context = small.getContext("2d");
    context.drawImage(backdrop, 0, 0);
    const colours = cellColours(routing, { ...shown, mode: "expert", expert, opacity: opacities.grey }, latent);
    cells.getContext("2d").putImageData(new ImageData(colours, routing.width, routing.height), 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(cells, 0, 0, small.width, small.height);
  });
}

function fitCanvas() {
  // Out of sight, it leaves the processor to the model.
  const isHidden = !stage.clientWidth;
  if (isHidden && !video.paused) {
    resumes = true;
    video.pause();
  } else if (!isHidden && resumes) {
    resumes = false;
    video.play().catch(() => {});
  }
  if (isHidden) {
    isAway = ![null, TAB].includes(tabOnShow());
    return;
  }
  if (isAway && run && isOfPair(location.search)) bar.add(); // until now it was the compare view's
  isAway = false;
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(stage.clientWidth * scale);
  const height = Math.round(stage.clientHeight * scale);
  if (width === canvas.width && height === canvas.height) return;
  canvas.width = width;
  canvas.height = height;
  draw();
}

function showFrame(next) {
  frame = next;
  scrub.value = frame;
  time.textContent = `${frame + 1} / ${run.frames}`;
  scrub.setAttribute("aria-valuetext", `frame ${frame + 1} of ${run.frames}`);
  if (routing) {
    const latent = latentFrame(frame, routing.temporal);
    [...latents.children].forEach((mark, t) => mark.classList.toggle("is-on", t === latent));
    markBar(timeline.querySelector("svg"), latent);
  }
  draw();
  showLabel();
  fillInspect();
}

// The canvas follows the picture on screen, not a clock: mediaTime names the frame that was presented.
function follow() {
  const read = () => run && showFrame(videoFrame(video.currentTime, run.fps, run.frames));
  if (!video.requestVideoFrameCallback) {
    ["timeupdate", "seeked", "loadeddata"].forEach((name) => video.addEventListener(name, read));
    return;
  }
  const onFrame = (_, metadata) => {
    if (run) showFrame(videoFrame(metadata.mediaTime, run.fps, run.frames));
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  // A browser may present no frame of a paused video that is out of sight, or that it shows already.
  video.addEventListener("seeked", () => video.paused && read());
}

function seek(next) {
  video.pause();
  video.currentTime = seekTime(Math.min(run.frames - 1, Math.max(0, next)), run.fps);
}

// While a clip is made the processor is the model's: what was playing waits, until it is played or another is chosen.
function onGenerating(isGenerating) {
  if (isGenerating === hasYielded.to) return;
  hasYielded.to = isGenerating;
  if (isGenerating && !video.paused) {
    hasYielded.resumes = true;
    video.pause();
  } else if (!isGenerating && hasYielded.resumes) {
    hasYielded.resumes = false;
    if (stage.clientWidth) video.play().catch(() => {});
    else resumes = true;
  }
}

function togglePlay() {
  if (video.paused) video.play().catch(() => {});
  else video.pause();
}

function showPlaying() {
  showOnButton(playButton, !video.paused);
  inspect.firstElementChild.setAttribute("aria-live", video.paused ? "polite" : "off"); // not twice a second
}

// --- the panel --------------------------------------------------------------------------------------------------

const CAPTIONS = {
  ...OVERLAYS,
  unrecorded:
    "What the backbone attends to was not recorded for this clip: tick the box above Generate, and make it again.",
  attended:
    "Where the chosen token looks, in space and time: how much its self-attention gives to each place of the clip, over all blocks, heads and recorded steps. Go through the frames to see it elsewhere in time.",
  annotation:
    "A target is where the model looks more while it describes the phenomenon than while it describes the video briefly. Percentages: the map's peak.",
  off: "The bare video. Tokens can still be chosen.",
};

function choose(change) {
  if ("opacity" in change) opacities[groundOf(change.mode || shown.mode)] = change.opacity;
  Object.assign(shown, change);
  shown.opacity = opacities[groundOf(shown.mode)];
  pointed = null;
  const group = groupOf(shown.mode);
  modes.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mode === group)));
  look();
  caption.textContent = CAPTIONS[captionOf()];
  opacity.value = Math.round(100 * shown.opacity);
  opacity.nextElementSibling.textContent = `${opacity.value} %`;
  opacity.disabled = shown.mode === "off";
  fillList();
  fillTimeline();
  draw();
  showLabel();
  fillInspect();
  writeAddress();
}

function captionOf() {
  if (isAnnotation()) return "annotation";
  if (shown.mode !== "words") return shown.mode;
  if (!routing.attention) return "unrecorded";
  return shown.attended ? "attended" : "words";
}

// In the mode words, what was chosen looks somewhere.
function look() {
  const fromThere = shown.mode === "words" && routing.attention && selected;
  shown.attended = fromThere ? attendedFrom(routing, tokensOf(routing, selectedAt, selected)) : null;
  shown.most = fromThere ? Math.max(...shown.attended, 1e-9) : 1;
}

const viewsThere = () => (isAttention() ? WORDS_VIEWS : VIEWS);
const modeOf = (button) => (isAnnotation() && button.dataset.mode === "phenomena" ? "phenomenon" : button.dataset.mode);

// An annotation has maps and no experts: nothing to select, to steer or to save. Of a clip without a branch there may be
// attention alone.
const isAnnotation = () => Boolean(routing) && !routing.experts.length && !routing.attention;
const isAttention = () => Boolean(routing) && !routing.experts.length && Boolean(routing.attention);

function listRow(i, isPhenomenon) {
  const row = make("button", "pp-row");
  row.type = "button";
  row.dataset.index = i;
  row.style.setProperty("--colour", isPhenomenon ? routing.phenomena[i][1] : routing.experts[i]);
  const name = isPhenomenon ? routing.phenomena[i][0] : expertName(routing, i);
  row.append(make("i", "pp-swatch"), make("span", "pp-name", name), make("i", "pp-meter"), make("span", "pp-share"));
  listen(row, i, isPhenomenon);
  return row;
}

// Choosing shows it alone; pointing at it shows it meanwhile.
function listen(row, i, isPhenomenon) {
  row.addEventListener("click", () => (isPhenomenon ? choosePhenomenon(i) : chooseExpert(i)));
  const alone = isPhenomenon ? { mode: "phenomenon", phenomenon: i } : { mode: "expert", expert: i };
  whenPointedAt(row, (isPointed) => point(isPointed ? alone : null));
}

function point(next) {
  pointed = next;
  draw();
}

function multiple(expert) {
  const item = make("button", "pp-multiple");
  item.type = "button";
  item.dataset.index = expert;
  item.style.setProperty("--colour", routing.experts[expert]);
  item.append(make("canvas"), make("i", "pp-swatch"), make("span", "", `Expert ${expert}`));
  item.append(make("small", "", routing.names[expert]), make("span", "pp-share"));
  item.title = expertName(routing, expert);
  listen(item, expert, false);
  return item;
}

// Rows are made once per kind and refilled in place, once per step: the keyboard's focus stays where it is, and
// switching experts costs next to nothing.
function fillList() {
  const isWords = shown.mode === "words" && Boolean(routing.attention);
  const isScale = shown.mode === "entropy" || shown.mode === "margin" || isWords;
  const isPhenomenon = isOfPhenomena(shown.mode);
  scale.hidden = !isScale;
  multiples.hidden = shown.mode !== "all";
  list.hidden = !isPhenomenon && !isWords && groupOf(shown.mode) !== "top1";
  if (isScale) fillScale(isWords);
  if (isWords) {
    fillWords();
    return;
  }
  const part = shown.mode === "all" ? multiples : list;
  if (part.hidden) return;
  const kind = isPhenomenon ? "phenomenon" : "expert";
  if (part.dataset.kind !== kind) {
    part.dataset.kind = kind;
    if (part === list) list.setAttribute("aria-label", isPhenomenon ? "Phenomena" : "Refinement experts");
    const indices = isPhenomenon ? order : routing.experts.map((_, e) => e);
    part.replaceChildren(...indices.map((i) => (part === list ? listRow(i, isPhenomenon) : multiple(i))));
  }
  let values = null;
  if (isOutdated(part, kind, shown.step)) {
    values = isPhenomenon ? phenomenonPeaks(routing, shown.step) : expertShares(routing, shown.step);
  }
  for (const row of part.children) {
    const i = Number(row.dataset.index);
    const isOn = shown.mode === kind && i === shown[kind];
    row.setAttribute("aria-pressed", String(isOn));
    if (!values) continue;
    row.style.setProperty("--share", values[i]);
    row.classList.toggle("is-absent", isPhenomenon && !isAnnotation() && values[i] < SHOWN_PEAK);
    row.lastElementChild.textContent = percent(values[i]);
  }
}

function fillScale(isWords) {
  const peak = isWords && (shown.attended ? shown.most : routing.attention.peaks[shown.word]);
  const ends = isWords ? ["0", `most, ${shareText(peak)}`] : ["0, low", "high, 1"];
  [...scale.querySelectorAll("span")].forEach((end, i) => (end.textContent = ends[i]));
  scale.setAttribute("aria-label", `Colour scale: from dark blue, ${ends[0]}, to yellow, ${ends[1]}`);
}

// The words of the prompt, in its order; with a token chosen, how much it attends to each.
function fillWords() {
  const { words } = routing.attention;
  if (list.dataset.kind !== "word") {
    list.dataset.kind = "word";
    list.setAttribute("aria-label", "Words of the prompt");
    list.replaceChildren(
      ...words.map((word, w) => {
        const row = make("button", "pp-row pp-word");
        row.type = "button";
        row.dataset.index = w;
        row.append(make("i"), make("span", "pp-name", word), make("i", "pp-meter"), make("span", "pp-share"));
        row.addEventListener("click", () => chooseWord(w));
        return row;
      }),
    );
  }
  const recorded = attentionStep(routing, shown.step);
  const shares = shown.attended
    ? wordShares(routing, recorded, tokensOf(routing, selectedAt, selected))
    : wordPeaks(routing, recorded);
  const largest = Math.max(...shares, 1e-9);
  delete list.dataset.shows; // filled for other rows when experts or phenomena come back
  for (const row of list.children) {
    const w = Number(row.dataset.index);
    row.setAttribute("aria-pressed", String(w === shown.word && !shown.attended));
    row.style.setProperty("--share", shares[w] / largest);
    row.lastElementChild.textContent = shareText(shares[w]);
  }
}

// A word's map instead of where a token looks.
function chooseWord(word) {
  if (selected) select(null);
  choose({ word });
}

// Choosing the phenomenon on show again returns to all of them; an annotation's maps are never laid over each other.
function choosePhenomenon(phenomenon) {
  const isAgain = shown.mode === "phenomenon" && shown.phenomenon === phenomenon && !isAnnotation();
  choose(isAgain ? { mode: "phenomena" } : { mode: "phenomenon", phenomenon });
}

// Choosing the expert on show again returns to all of them.
function chooseExpert(expert) {
  if (shown.mode === "expert" && shown.expert === expert) choose({ mode: "top1" });
  else choose({ mode: "expert", expert });
}

function chooseStep(step) {
  stepSlider.value = step;
  stepSlider.nextElementSibling.textContent = `${routing.steps[step]} of ${routing.total_steps}`;
  choose({ step });
}

function fillTimeline() {
  if (!routing.experts.length || !isOutdated(timeline, shown.step)) return;
  stackedBars(timeline.querySelector("svg"), {
    bars: expertSharesOverTime(routing, shown.step),
    colours: routing.experts,
    nameOf: (t) => framesText(t, routing.temporal),
    title: `Experts over time, at denoising step ${routing.steps[shown.step]}`,
    onChoose: (t) => seek(firstVideoFrame(t, routing.temporal)),
    widths: Array.from({ length: routing.frames }, (_, t) => (t === 0 ? 1 : routing.temporal)),
  });
  const [first, last] = timeline.querySelector(".pp-ends").children;
  first.textContent = framesText(0, routing.temporal);
  last.textContent = routing.frames > 1 ? framesText(routing.frames - 1, routing.temporal) : "";
  markBar(timeline.querySelector("svg"), latentFrame(frame, routing.temporal));
}

function fillBars() {
  if (!routing.experts.length) return;
  const largest = Math.max(...routing.semantic);
  const even = 1 / routing.semantic.length;
  const best = routing.semantic.indexOf(largest);
  find(".pp-semantic-note").textContent =
    `how the branch reads the whole prompt; strongest: expert ${best}, ${percent(largest)} (${percent(even)} if all were alike)`;
  const bars = find(".pp-bars");
  bars.style.setProperty("--even", even / largest);
  bars.setAttribute("role", "img");
  bars.setAttribute("aria-label", `Weights of ${routing.semantic.length} semantic experts; the largest is expert ${best}'s`);
  bars.replaceChildren(
    ...routing.semantic.map((weight, s) => {
      const bar = make("div", s === best ? "pp-bar is-best" : "pp-bar");
      bar.title = `semantic expert ${s}: ${(100 * weight).toFixed(1)} %`;
      bar.style.setProperty("--height", weight / largest);
      bar.append(make("i"), make("span", "", s));
      return bar;
    }),
  );
}

// --- a token or a region ----------------------------------------------------------------------------------------

function showLabel() {
  label.hidden = !routing || !hovered || Boolean(drag);
  if (label.hidden) return;
  const { row, column } = hovered;
  const token = tokenAt(routing, latentFrame(frame, routing.temporal), row, column);
  label.textContent = tokenLabel(routing, drawn(), token);
  // Beside the cell, on the side with more room.
  const isRight = column >= routing.width / 2;
  const isLow = row >= routing.height / 2;
  const part = (share) => `${100 * share}%`;
  label.style.left = isRight ? "auto" : part((column + 1) / routing.width);
  label.style.right = isRight ? part(1 - column / routing.width) : "auto";
  label.style.top = isLow ? "auto" : part(row / routing.height);
  label.style.bottom = isLow ? part(1 - (row + 1) / routing.height) : "auto";
}

function select(region) {
  const hadFocus = inspect.contains(document.activeElement);
  selected = region;
  if (routing && selected) selectedAt = latentFrame(frame, routing.temporal);
  if (routing && shown.mode === "words") choose({});
  inspect.hidden = !selected;
  if (!selected && hadFocus) view.focus({ preventScroll: true });
  draw();
  fillInspect();
}

function fillInspect() {
  if (!routing || !selected) return;
  const { rows, columns } = selected;
  const { step } = shown;
  const latent = latentFrame(frame, routing.temporal);
  fillLooks(latent);
  if (!isOutdated(inspect, rows, columns, latent, step)) return;
  const here = framesText(latent, routing.temporal);
  const heading = `${regionTitle(selected)}, ${here}`;
  inspect.querySelector("h3").textContent = heading;
  inspect.setAttribute("aria-label", heading);
  if (isOutdated(overTime, rows, columns, step)) {
    fillPlot(overTime, {
      colours: routing.experts,
      bars: regionOverTime(routing, step, rows, columns),
      nameOf: (t) => framesText(t, routing.temporal),
      title: `Over the clip, at denoising step ${routing.steps[step]}`,
      onChoose: (t) => seek(firstVideoFrame(t, routing.temporal)),
    });
  }
  if (isOutdated(overSteps, rows, columns, latent)) {
    fillPlot(overSteps, {
      colours: routing.experts,
      bars: regionOverSteps(routing, latent, rows, columns),
      nameOf: (d) => `step ${routing.steps[d]}`,
      title: `Over denoising, at ${here}`,
      onChoose: chooseStep,
    });
  }
  markBar(overTime.querySelector("svg"), latent);
  markBar(overSteps.querySelector("svg"), step);
  fillNumbers(find(".pp-numbers"), routing, regionWeights(routing, step, latent, rows, columns));
}

// When the chosen tokens look: one bar a latent frame.
function fillLooks(latent) {
  attendedFigure.hidden = !shown.attended;
  if (!shown.attended || !isOutdated(attendedFigure, selectedAt, selected.rows, selected.columns, latent)) return;
  const shares = attendedOverTime(routing, shown.attended);
  const largest = Math.max(...shares, 1e-9);
  const names = shares.map((share, t) => `${framesText(t, routing.temporal)}: ${shareText(share)}`);
  attendedFigure.querySelector("figcaption").textContent =
    `Where in time it looks from ${framesText(selectedAt, routing.temporal)}: share of its attention`;
  const bars = attendedFigure.querySelector(".pp-curve");
  bars.setAttribute("aria-label", names.join("; "));
  bars.replaceChildren(
    ...shares.map((share, t) => {
      const bar = make("i", t === latent ? "is-on" : "");
      bar.title = names[t];
      bar.dataset.share = share;
      bar.style.setProperty("--height", share / largest);
      bar.style.flexGrow = t === 0 ? 1 : routing.temporal;
      bar.addEventListener("click", () => seek(firstVideoFrame(t, routing.temporal)));
      return bar;
    }),
  );
  const [first, last] = attendedFigure.querySelector(".pp-ends").children;
  first.textContent = framesText(0, routing.temporal);
  last.textContent = routing.frames > 1 ? framesText(routing.frames - 1, routing.temporal) : "";
}

function hover(cell) {
  const isSame = cell && hovered ? cell.row === hovered.row && cell.column === hovered.column : cell === hovered;
  if (isSame) return;
  hovered = cell;
  draw();
  showLabel();
}

function onPointerDown(event) {
  if (!routing || isAnnotation() || !event.isPrimary || event.button !== 0) return;
  drag = { cell: cellUnder(routing, stage, event), x: event.clientX, y: event.clientY, region: null };
  stage.setPointerCapture(event.pointerId);
}

function onPointerMove(event) {
  if (!routing || !event.isPrimary) return;
  if (!drag) {
    if (event.pointerType !== "touch") hover(cellUnder(routing, stage, event)); // a finger covers what it points at
    return;
  }
  if (!drag.region && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < DRAG) return;
  drag.region = regionBetween(drag.cell, cellUnder(routing, stage, event));
  showLabel();
  draw();
}

function onPointerUp(event) {
  if (!drag || !event.isPrimary) return;
  const { cell, region } = drag;
  drag = null;
  select(region || regionBetween(cell, cell));
}

// The page takes over, to scroll.
function onPointerCancel() {
  drag = null;
  draw();
}

// --- a link -----------------------------------------------------------------------------------------------------

// The picture as it is on show, made anew by the server from the run's own files.
async function save(button) {
  const said = button.innerText; // without what does not show
  find(".pp-save").open = false;
  copied.textContent = `making: ${said.toLowerCase()} …`;
  const laid = viewToSave(routing, shown, selected && { at: selectedAt, ...selected });
  const wrong = await download({ run: run.id, what: button.dataset.what, frame, ...laid });
  copied.textContent = wrong || "saved";
  setTimeout(() => (copied.textContent = ""), wrong ? 4 * COPIED_MS : COPIED_MS);
}

// Only the page's main view has the address bar. It stays bare until something is chosen.
const hasAddress = Boolean(element.closest("#routing-view"));
let addressed = null; // the run that the address bar follows; none while an address is being obeyed

function address(at) {
  return linkTo(location.origin + location.pathname, addressOf(run.id, routing, shown, at));
}

const bar = addressBar(TAB, () => (run && addressed ? address(video.paused ? frame : null) : null));

function writeAddress() {
  if (run && hasAddress && addressed) bar.soon();
}


// Back and forward: the same run as it was, or another one from the server.
function revisit() {
  if (!run || !hasAddress) return;
  if (isOfPair(location.search)) {
    toTab("compare");
    return;
  }
  toTab(TAB);
  const id = new URLSearchParams(location.search).get("run") || firstRun;
  if (id !== run.id) {
    isArriving = true;
    trigger("revisit", { id });
    return;
  }
  addressed = null; // nothing is written while what the address says is shown
  obeyAddress();
  addressed = run.id;
}

function obeyAddress() {
  const { change, frame: at } = readAddress(location.search, routing, run.frames, viewsThere());
  if (routing) {
    const { step, ...rest } = change;
    Object.assign(shown, rest);
    if ("opacity" in rest) opacities[groundOf(shown.mode)] = rest.opacity;
    chooseStep(step ?? routing.steps.length - 1);
  }
  if (at !== null) seek(at);
}

// --- a run ------------------------------------------------------------------------------------------------------

let startAt = null; // the frame that the address names
let modeBefore = null; // the mode to return to after a clip that has not got it
let firstRun = null; // the one that the bare address shows

function open(next) {
  hasYielded.resumes = false;
  run = next;
  frame = 0; // before anything is drawn: a longer clip's frame, or a larger grid's token, may not exist here
  hovered = drag = routing = null;
  select(null);
  [list, multiples, inspect, overTime, overSteps, timeline, attendedFigure].forEach((part) => delete part.dataset.shows);
  routing = run && run.routing ? readRouting(run.routing) : null;
  linkText.hidden = true;
  view.hidden = !run;
  element.querySelector(".pp-empty").hidden = Boolean(run);
  if (source) URL.revokeObjectURL(source);
  source = null;
  if (!run) {
    video.removeAttribute("src");
    video.load();
    return;
  }
  view.dataset.run = run.id;
  find(".pp-prompt").textContent = run.prompt;
  find(".pp-facts").textContent = run.facts.join(" · ");
  const unknown = find(".pp-unknown");
  unknown.hidden = run.unknown_words.length === 0;
  unknown.textContent = `The model has never seen: ${run.unknown_words.join(", ")}. It worked from the other words.`;

  stage.style.aspectRatio = run.aspect;
  view.style.setProperty("--aspect", run.aspect);
  source = URL.createObjectURL(new Blob([bytesOf(run.video)], { type: "video/mp4" }));
  video.src = source;
  scrub.max = run.frames - 1;
  const isAsked = isArriving && run.by_link && new URLSearchParams(location.search).get("run") === run.id;
  const asked = isAsked ? readAddress(location.search, routing, run.frames, viewsThere()) : { change: {}, frame: null };
  startAt = asked.frame;

  view.classList.toggle("is-bare", !routing);
  view.classList.toggle("is-annotation", isAnnotation());
  view.classList.toggle("is-attention", isAttention());
  if (isAnnotation()) shown.mode = "phenomenon";
  if (modeBefore && routing && !isAttention()) [shown.mode, modeBefore] = [modeBefore, null];
  if (isAttention() && !WORDS_VIEWS.includes(shown.mode)) [shown.mode, modeBefore] = ["words", shown.mode];
  if (!routing) stage.classList.remove("is-grey");
  find(".pp-bare").hidden = Boolean(routing) && !isAttention();
  if (routing) {
    const sizes = Array.from({ length: routing.frames }, (_, t) => (t === 0 ? 1 : routing.temporal));
    latents.replaceChildren(
      ...sizes.map((size) => {
        const mark = make("i");
        mark.style.flexGrow = size;
        return mark;
      }),
    );
    stepSlider.max = routing.steps.length - 1;
    const shares = expertShares(routing, routing.steps.length - 1);
    shown.expert = shares.indexOf(Math.max(...shares));
    cells.width = routing.width;
    cells.height = routing.height;
    [list, multiples].forEach((part) => delete part.dataset.kind);
    fillBars();
    const peaks = phenomenonPeaks(routing, routing.steps.length - 1);
    order = [...routing.offered];
    if (!isAnnotation()) order.sort((a, b) => peaks[b] - peaks[a]); // an annotation's maps belong together
    shown.phenomenon = order[0];
    shown.word = firstWord();
    if (shown.mode === "phenomenon" && !isAnnotation()) shown.mode = "phenomena";
    Object.assign(shown, asked.change);
    if ("opacity" in asked.change) opacities[groundOf(shown.mode)] = asked.change.opacity;
    chooseStep(asked.change.step ?? routing.steps.length - 1);
  }
  showFrame(startAt ?? 0);
  fitCanvas();
  if (!isStill.matches && startAt === null) video.play().catch(() => {});
  if (hasAddress && firstRun && !(isArriving && run.by_link)) {
    addressed = run.id;
    bar.add();
  }
  firstRun = firstRun || run.id;
  if (run.by_link) isArriving = false; // until then the run that the page brings stands here, and the address stays
  addressed = isArriving ? null : run.id;
}

// The word to begin with: the one that a token attends to most.
function firstWord() {
  if (!routing.attention) return 0;
  const { peaks } = routing.attention;
  return peaks.indexOf(Math.max(...peaks));
}

function onKey(event) {
  if (!run || event.ctrlKey || event.metaKey || event.altKey || event.target === linkText) return;
  const onControl = event.target.closest("button, input");
  const isSlider = Boolean(onControl) && onControl.tagName === "INPUT";
  const key = event.key;
  if (key === " " && !(onControl && onControl.tagName === "BUTTON")) togglePlay();
  else if (key === ",") seek(frame - 1);
  else if (key === ".") seek(frame + 1);
  else if (routing && /^[0-9]$/.test(key) && Number(key) < routing.experts.length) chooseExpert(Number(key));
  else if (routing && "[]".includes(key)) choose({ opacity: opacityAfter(key, shown.opacity) });
  else if (routing && !isAnnotation() && !selected && key === "Enter" && !onControl) select(centreOf(routing));
  else if (selected && key in ARROWS && !isSlider) select(movedRegion(routing, selected, ...ARROWS[key]));
  else if (selected && key === "Escape") select(null);
  else return;
  event.preventDefault();
}

playButton.addEventListener("click", togglePlay);
// Over a routing a click chooses a token; two play.
stage.addEventListener("click", () => !routing && togglePlay());
stage.addEventListener("dblclick", () => routing && togglePlay());
stage.addEventListener("pointerdown", onPointerDown);
stage.addEventListener("pointermove", onPointerMove);
stage.addEventListener("pointerup", onPointerUp);
stage.addEventListener("pointercancel", onPointerCancel);
stage.addEventListener("pointerleave", () => hover(null));
find(".pp-close").addEventListener("click", () => select(null));
find(".pp-copy").addEventListener("click", () => copyLink(address(frame), linkText, copied));
find(".pp-to-steer").addEventListener("click", () => trigger("steer", { id: run.id }));
for (const button of find(".pp-save").querySelectorAll("button")) button.addEventListener("click", () => save(button));
document.addEventListener("click", (event) => {
  if (!find(".pp-save").contains(event.target)) find(".pp-save").open = false;
});
video.addEventListener("loadedmetadata", () => run && startAt !== null && seek(startAt));
video.addEventListener("pause", writeAddress);
video.addEventListener("seeked", () => video.paused && writeAddress());
window.addEventListener("popstate", revisit);
document.addEventListener("prophy-generating", ({ detail }) => onGenerating(detail));
["play", "pause", "emptied"].forEach((name) => video.addEventListener(name, showPlaying));
scrub.addEventListener("input", () => seek(Number(scrub.value)));
opacity.addEventListener("input", () => choose({ opacity: Number(opacity.value) / 100 }));
stepSlider.addEventListener("input", () => chooseStep(Number(stepSlider.value)));
modes.forEach((button) => button.addEventListener("click", () => choose({ mode: modeOf(button) })));
view.addEventListener("keydown", onKey);
new ResizeObserver(fitCanvas).observe(stage);
new ResizeObserver(() => view.classList.toggle("is-narrow", view.clientWidth < NARROW)).observe(view);

scale.firstElementChild.style.backgroundImage = scaleGradient();
showPlaying();
follow();
watch("value", () => open(props.value));
// On a page whose link names a run, that one follows.
open(hasAddress && isArriving ? null : props.value || null);
