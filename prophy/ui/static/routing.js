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

// Of each expert, the share of the clip's tokens where it is the strongest.
function expertShares(routing, step) {
  const shares = new Array(routing.experts.length).fill(0);
  for (let n = 0; n < routing.tokens; n++) shares[topExpert(routing, step, n)] += 1 / routing.tokens;
  return shares;
}

// Of each phenomenon, the largest value in the clip, 0 to 1.
function phenomenonPeaks(routing, step) {
  return routing.phenomena.map((_, p) => {
    let peak = 0;
    for (let n = 0; n < routing.tokens; n++) peak = Math.max(peak, phenomenonValue(routing, step, n, p));
    return peak / 255;
  });
}

// RGBA of one latent frame's tokens, row by row: what `shown` = {mode, expert, phenomenon, step, opacity} lays over it.
// top1 tints every token alike; expert and phenomenon tint a token the more, the stronger it is there.
function cellColours(routing, shown, latent) {
  const perFrame = routing.height * routing.width;
  const rgba = new Uint8ClampedArray(4 * perFrame);
  for (let i = 0; i < perFrame; i++) {
    const token = latent * perFrame + i;
    let colour;
    let strength = 255;
    if (shown.mode === "top1") {
      colour = routing.expertColours[topExpert(routing, shown.step, token)];
    } else if (shown.mode === "expert") {
      colour = routing.expertColours[shown.expert];
      strength = expertWeight(routing, shown.step, token, shown.expert);
    } else {
      colour = routing.phenomenonColours[shown.phenomenon];
      strength = phenomenonValue(routing, shown.step, token, shown.phenomenon);
    }
    rgba.set(colour, 4 * i);
    rgba[4 * i + 3] = Math.round(strength * shown.opacity);
  }
  return rgba;
}

if (typeof module !== "undefined") {
  module.exports = {
    bytesOf,
    cellColours,
    expertShares,
    expertWeight,
    latentFrame,
    phenomenonPeaks,
    phenomenonValue,
    readRouting,
    rgbOf,
    seekTime,
    topExpert,
    videoFrame,
  };
}
