// What is done to the experts, as the browser keeps it, and as prophy.routing.steering reads it. Pure; tests run it under node.
//
// A steering is {semantic: Map, refinement: Map, forced: [region], strength}; the maps hold only what differs from 1. A
// region is {expert, first, last, cells}: latent frames inclusive, cells a Set of row · columns + column. Strength
// is that of the whole branch: 1 is exactly as trained.

const SCALES = [
  ["Invert", -1],
  ["Mute", 0],
  ["As is", 1],
  ["Boost", 2],
];

function neutral() {
  return { semantic: new Map(), refinement: new Map(), forced: [], strength: 1 };
}

function setScale(steering, kind, expert, scale) {
  if (scale === 1) steering[kind].delete(expert);
  else steering[kind].set(expert, scale);
}

function isNeutral(steering) {
  return !steering.semantic.size && !steering.refinement.size && !steering.forced.length && steering.strength === 1;
}

// The object that prophy.routing.steering.Steering.from_json reads; empty for one that does nothing.
function toJson(steering, columns) {
  const document = {};
  for (const kind of ["semantic", "refinement"]) {
    if (steering[kind].size) document[kind] = Object.fromEntries([...steering[kind]].sort(([a], [b]) => a - b));
  }
  if (steering.forced.length) {
    document.forced = steering.forced.map((region) => ({
      expert: region.expert,
      first_frame: region.first,
      last_frame: region.last,
      cells: [...region.cells].sort((a, b) => a - b).map((cell) => [Math.floor(cell / columns), cell % columns]),
    }));
  }
  if (steering.strength !== 1) document.strength = steering.strength;
  return document;
}

function fromJson(document, columns) {
  const read = (scales) => new Map(Object.entries(scales || {}).map(([expert, scale]) => [Number(expert), scale]));
  return {
    semantic: read(document.semantic),
    refinement: read(document.refinement),
    forced: (document.forced || []).map((region) => ({
      expert: region.expert,
      first: region.first_frame,
      last: region.last_frame,
      cells: new Set(region.cells.map(([row, column]) => row * columns + column)),
    })),
    strength: document.strength ?? 1,
  };
}

// One short text for each expert steered and each region: what prophy.routing.steering.Steering.describe says.
function describeSteering(steering) {
  const names = new Map(SCALES.map(([, scale], i) => [scale, ["inverted", "muted", "", "×2"][i]]));
  const line = (prefix) => ([expert, scale]) => `${prefix}expert ${expert} ${names.get(scale) || `×${scale}`}`;
  const byExpert = (map) => [...map].sort(([a], [b]) => a - b);
  return [
    ...byExpert(steering.semantic).map(line("semantic ")),
    ...byExpert(steering.refinement).map(line("")),
    ...steering.forced.map(({ expert, first, last, cells }) => {
      const span = first === last ? `latent frame ${first}` : `latent frames ${first}–${last}`;
      return `expert ${expert} forced on ${cells.size} cell${cells.size > 1 ? "s" : ""}, ${span}`;
    }),
    ...(steering.strength === 1 ? [] : [`branch ×${steering.strength}`]),
  ];
}

if (typeof module !== "undefined") {
  module.exports = { SCALES, describeSteering, fromJson, isNeutral, neutral, setScale, toJson };
}
