// The live view: progress, the predicted clean frames and the strongest experts. routing.js stands before this text. The
// page's own event "prophy-generating" tells the other views whether denoising goes on.

const live = element.querySelector(".pp-live");
const part = (selector) => live.querySelector(selector);
const progress = part(".pp-progress");

function paint(figure, sent, toRgb) {
  figure.hidden = !sent;
  if (!sent) return;
  const [[count, height, width], base64] = sent;
  const bytes = bytesOf(base64);
  const strip = figure.querySelector(".pp-strip");
  while (strip.children.length < count) strip.append(document.createElement("canvas"));
  while (strip.children.length > count) strip.lastChild.remove();
  const channels = bytes.length / (count * height * width);
  [...strip.children].forEach((canvas, t) => {
    canvas.width = width;
    canvas.height = height;
    const rgba = new Uint8ClampedArray(4 * height * width);
    for (let i = 0; i < height * width; i++) {
      const at = (t * height * width + i) * channels;
      rgba.set(toRgb(bytes, at), 4 * i);
      rgba[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  });
}

function show(value) {
  live.hidden = !value;
  const detail = Boolean(value && value.is_running && value.total);
  document.dispatchEvent(new CustomEvent("prophy-generating", { detail }));
  if (!value) return;
  live.classList.toggle("is-running", value.is_running);
  live.dataset.step = value.step;
  part(".pp-prompt").textContent = value.prompt;
  part(".pp-headline").textContent = value.headline;
  part(".pp-detail").textContent = value.detail;
  progress.classList.toggle("is-unknown", value.total === 0);
  progress.style.setProperty("--done", value.total ? value.step / value.total : 0);
  progress.setAttribute("aria-valuemin", 0);
  progress.setAttribute("aria-valuemax", value.total || 1);
  progress.setAttribute("aria-valuenow", value.step);
  const colours = value.experts.map(rgbOf);
  paint(part(".pp-pictures"), value.pictures, (bytes, at) => bytes.subarray(at, at + 3));
  paint(part(".pp-top1"), value.top1, (bytes, at) => colours[bytes[at]]);
}

watch("value", () => show(props.value));
show(props.value || null);
