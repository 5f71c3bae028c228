// Runs as cards; choosing one triggers 'choose' with its id. gradio gives `element`, `props`, `trigger` and `watch`.

const cards = element.querySelector(".pp-runs");

function card(run) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "pp-card";
  button.title = run.prompt;
  const poster = document.createElement("img");
  poster.src = run.poster;
  poster.alt = "";
  const prompt = document.createElement("span");
  prompt.className = "pp-card-prompt";
  prompt.textContent = run.prompt;
  const seed = document.createElement("span");
  seed.className = "pp-card-seed";
  seed.textContent = `seed ${run.seed}`;
  button.append(poster, prompt, seed);
  button.addEventListener("click", () => trigger("choose", { id: run.id }));
  return button;
}

function fill(runs) {
  cards.replaceChildren(...(runs || []).map(card));
}

watch("value", () => fill(props.value));
fill(props.value);
