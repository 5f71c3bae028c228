// After the sides have changed places: the form's prompts follow where they are those of the two clips. What was typed
// since, for other clips, stays as it is.
(a, b) => {
  const on = (side) => document.querySelector(`.pp-compare .pp-side.is-${side} .pp-prompt`).textContent.trim();
  return on("a") === b.trim() && on("b") === a.trim() ? [b, a] : [a, b];
}
