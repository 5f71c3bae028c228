// Copy a command; where the page may not use the clipboard, select it instead. In the app, element is given.
const root = typeof element === "undefined" ? document : element;
root.addEventListener("click", async ({ target }) => {
  if (!target.matches(".ev-command button")) return;
  const code = target.previousElementSibling;
  try {
    await navigator.clipboard.writeText(code.textContent);
    target.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
  }
});

// A click on a cell of a matrix shows its picture, which the cell's customdata names. Plots come after this script, so
// each is asked when it is first pointed at; the app runs this once for every part of the page.
if (!document.body.dataset.evidencePictures) {
  document.body.dataset.evidencePictures = "asked";
  document.addEventListener("pointerover", ({ target }) => {
    const plot = target.closest(".js-plotly-plot");
    if (!plot || plot.dataset.evidencePictures) return;
    plot.dataset.evidencePictures = "asked";
    plot.on("plotly_click", ({ points: [{ customdata }] }) => {
      const picture = customdata && document.getElementById(`evidence-picture-${customdata}`);
      if (picture) picture.scrollIntoView({ behavior: "smooth", block: "center" });
    });
  });
}
