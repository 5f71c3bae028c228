// The routing view of one run. gradio gives `element`, `props` and `watch`; routing.js stands before this text.

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

const ICONS = {
  play: '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M4 2.5v11l9-5.5z"/></svg>',
  pause: '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z"/></svg>',
};
const NARROW = 700; // pixels: below this the panel stands under the video
const isStill = window.matchMedia("(prefers-reduced-motion: reduce)");

let run = null;
let routing = null;
let frame = 0;
let order = []; // phenomena by their peak at the last step: the list keeps this order while the step changes
let source = null;
let resumes = false;
// What is laid over the video. Mode and opacity outlive a run; the rest belongs to it.
const shown = { mode: "top1", expert: 0, phenomenon: 0, step: 0, opacity: 0.45 };

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const percent = (share) => (share > 0 && share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`);

// --- the picture ------------------------------------------------------------------------------------------------

const cells = document.createElement("canvas");

function draw() {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!routing) return;
  const latent = latentFrame(frame, routing.temporal);
  cells.width = routing.width;
  cells.height = routing.height;
  const colours = cellColours(routing, shown, latent);
  cells.getContext("2d").putImageData(new ImageData(colours, routing.width, routing.height), 0, 0);
  context.imageSmoothingEnabled = false; // a token is one flat cell: what is shown is what was recorded
  context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  canvas.dataset.frame = frame;
  canvas.dataset.latent = latent;
}

function fitCanvas() {
  // Hidden behind the live view, it leaves the processor to the model.
  const isHidden = !stage.clientWidth;
  if (isHidden && !video.paused) {
    resumes = true;
    video.pause();
  } else if (!isHidden && resumes) {
    resumes = false;
    video.play().catch(() => {});
  }
  if (isHidden) return;
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
  }
  draw();
}

// The canvas follows the picture on screen, not a clock: mediaTime names the frame that was presented.
function follow() {
  if (!video.requestVideoFrameCallback) {
    const read = () => run && showFrame(videoFrame(video.currentTime, run.fps, run.frames));
    ["timeupdate", "seeked", "loadeddata"].forEach((name) => video.addEventListener(name, read));
    return;
  }
  const onFrame = (_, metadata) => {
    if (run) showFrame(videoFrame(metadata.mediaTime, run.fps, run.frames));
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
}

function seek(next) {
  video.pause();
  video.currentTime = seekTime(Math.min(run.frames - 1, Math.max(0, next)), run.fps);
}

function togglePlay() {
  if (video.paused) video.play().catch(() => {});
  else video.pause();
}

function showPlaying() {
  playButton.innerHTML = video.paused ? ICONS.play : ICONS.pause;
  playButton.setAttribute("aria-label", video.paused ? "Play" : "Pause");
}

// --- the panel --------------------------------------------------------------------------------------------------

const CAPTIONS = {
  top1: "Each cell is one token, in the colour of the expert with the largest weight. Percentages: share of the clip's tokens.",
  expert: "The fuller the colour, the larger this expert's weight there; none where it was not chosen.",
  phenomenon: "Where the branch's map, which was trained on labelled regions, places a phenomenon. Percentages: the map's peak.",
};

function choose(change) {
  Object.assign(shown, change);
  modes.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mode === shown.mode)));
  caption.textContent = CAPTIONS[shown.mode];
  opacity.value = Math.round(100 * shown.opacity);
  opacity.nextElementSibling.textContent = `${opacity.value} %`;
  fillList();
  draw();
}

function listRow(colour, name, onClick) {
  const row = make("button", "pp-row");
  row.type = "button";
  row.style.setProperty("--colour", colour);
  row.append(make("i", "pp-swatch"), make("span", "pp-name", name), make("i", "pp-meter"), make("span", "pp-share"));
  row.addEventListener("click", onClick);
  return row;
}

// Rows are made once per kind and refilled in place, so that the keyboard's focus stays where it is.
function fillList() {
  const isPhenomenon = shown.mode === "phenomenon";
  const values = isPhenomenon ? phenomenonPeaks(routing, shown.step) : expertShares(routing, shown.step);
  const kind = isPhenomenon ? "phenomenon" : "expert";
  const isSame = list.dataset.kind === kind && list.children.length === values.length;
  if (!isSame) {
    list.dataset.kind = kind;
    list.setAttribute("aria-label", isPhenomenon ? "Phenomena" : "Refinement experts");
    const indices = isPhenomenon ? order : routing.experts.map((_, e) => e);
    list.replaceChildren(
      ...indices.map((i) => {
        const row = isPhenomenon
          ? listRow(routing.phenomena[i][1], routing.phenomena[i][0], () => choose({ phenomenon: i }))
          : listRow(routing.experts[i], `Expert ${i}`, () => chooseExpert(i));
        row.dataset.index = i;
        return row;
      }),
    );
  }
  for (const row of list.children) {
    const i = Number(row.dataset.index);
    const isOn = isPhenomenon ? i === shown.phenomenon : shown.mode === "expert" && i === shown.expert;
    row.setAttribute("aria-pressed", String(isOn));
    row.style.setProperty("--share", values[i]);
    row.lastElementChild.textContent = percent(values[i]);
  }
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

function fillBars() {
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

// --- a run ------------------------------------------------------------------------------------------------------

function open(next) {
  run = next;
  frame = 0; // before anything is drawn: a longer clip's frame may not exist here
  routing = run && run.routing ? readRouting(run.routing) : null;
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
  source = URL.createObjectURL(new Blob([bytesOf(run.video)], { type: "video/mp4" }));
  video.src = source;
  scrub.max = run.frames - 1;

  view.classList.toggle("is-bare", !routing);
  find(".pp-bare").hidden = Boolean(routing);
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
    delete list.dataset.kind;
    fillBars();
    const peaks = phenomenonPeaks(routing, routing.steps.length - 1);
    order = peaks.map((_, p) => p).sort((a, b) => peaks[b] - peaks[a]);
    shown.phenomenon = order[0];
    chooseStep(routing.steps.length - 1);
  }
  showFrame(0);
  fitCanvas();
  if (!isStill.matches) video.play().catch(() => {});
}

function onKey(event) {
  if (!run || event.ctrlKey || event.metaKey || event.altKey) return;
  const onControl = event.target.closest("button, input");
  const key = event.key;
  if (key === " " && !(onControl && onControl.tagName === "BUTTON")) togglePlay();
  else if (key === ",") seek(frame - 1);
  else if (key === ".") seek(frame + 1);
  else if (routing && /^[0-9]$/.test(key) && Number(key) < routing.experts.length) chooseExpert(Number(key));
  else if (routing && key === "[") choose({ opacity: Math.max(0, Math.round(20 * shown.opacity - 2) / 20) });
  else if (routing && key === "]") choose({ opacity: Math.min(1, Math.round(20 * shown.opacity + 2) / 20) });
  else return;
  event.preventDefault();
}

playButton.addEventListener("click", togglePlay);
stage.addEventListener("click", togglePlay);
["play", "pause", "emptied"].forEach((name) => video.addEventListener(name, showPlaying));
scrub.addEventListener("input", () => seek(Number(scrub.value)));
opacity.addEventListener("input", () => choose({ opacity: Number(opacity.value) / 100 }));
stepSlider.addEventListener("input", () => chooseStep(Number(stepSlider.value)));
modes.forEach((button) => button.addEventListener("click", () => choose({ mode: button.dataset.mode })));
view.addEventListener("keydown", onKey);
new ResizeObserver(fitCanvas).observe(stage);
new ResizeObserver(() => view.classList.toggle("is-narrow", view.clientWidth < NARROW)).observe(view);

showPlaying();
follow();
watch("value", () => open(props.value));
open(props.value || null);
