// Experts' weights as stacked bars and as numbers, drawn here: a library of megabytes, or a trip to the server, would make
// a click wait. routing.js and parts.js stand before this text.

const BAR_GAP = 0.07; // of a bar's place, on either side
const MARK_HEIGHT = 0.05; // of a bar's height: the line under the bar that is on show

// Draws `bars`, one array of experts' weights each, from the first expert at the foot to the rest of 1 at the top.
// `colours`: by expert; `nameOf(i)`: what bar i is; `title`: what the plot is; onChoose(i): a bar was clicked; `widths`:
// of the bars' places, each 1 unless given.
function stackedBars(svg, { bars, colours, nameOf, title, onChoose, widths = bars.map(() => 1) }) {
  const shape = (tag, attributes, text) => {
    const node = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const texts = bars.map((weights, i) => `${nameOf(i)}: ${weightsText(weights)}`);
  const total = widths.reduce((sum, width) => sum + width, 0);
  const starts = widths.map((_, i) => widths.slice(0, i).reduce((sum, width) => sum + width, 0));
  svg.setAttribute("viewBox", `0 0 ${total} ${1 + 2 * MARK_HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-label", `${title}. ${texts.join("; ")}.`);
  svg.replaceChildren(
    ...bars.map((weights, i) => {
      const bar = shape("g", { class: "pp-stack" });
      const part = (y, height, attributes) =>
        bar.append(shape("rect", { x: starts[i] + BAR_GAP, y, width: widths[i] - 2 * BAR_GAP, height, ...attributes }));
      bar.append(shape("title", {}, texts[i]));
      let top = 1;
      weights.forEach((weight, expert) => {
        const height = Math.min(weight, top); // rounded weights may add up to a little more than 1
        if (height <= 0) return;
        top -= height;
        part(top, height, { fill: colours[expert], "data-expert": expert, "data-weight": byteText(weight) });
      });
      part(0, top, { class: "pp-others" });
      part(1 + MARK_HEIGHT, MARK_HEIGHT, { class: "pp-mark" });
      return bar;
    }),
  );
  svg.onclick = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * total;
    onChoose(Math.max(0, starts.findLastIndex((start) => start <= at)));
  };
}

// The bars of a figure, with what the first and the last of them is.
function fillPlot(figure, plot) {
  figure.querySelector("figcaption").textContent = plot.title;
  stackedBars(figure.querySelector("svg"), plot);
  const [first, last] = figure.querySelector(".pp-ends").children;
  first.textContent = plot.nameOf(0);
  last.textContent = plot.bars.length > 1 ? plot.nameOf(plot.bars.length - 1) : "";
}

function fillNumbers(list, routing, weights) {
  const line = (colour, name, weight) => {
    const item = make("li");
    if (colour) item.style.setProperty("--colour", colour);
    item.append(make("i", colour ? "pp-swatch" : "pp-swatch pp-others"), make("span", "", name));
    item.append(make("span", "pp-weight", weight.toFixed(3)));
    return item;
  };
  list.replaceChildren(
    ...ranked(weights).map(([expert, weight]) => {
      const item = line(routing.experts[expert], expertName(routing, expert), weight);
      item.dataset.expert = expert;
      item.dataset.weight = byteText(weight);
      return item;
    }),
    line(null, "Others", othersWeight(weights)),
  );
}

function markBar(svg, index) {
  [...svg.children].forEach((bar, i) => bar.classList.toggle("is-on", i === index));
}
