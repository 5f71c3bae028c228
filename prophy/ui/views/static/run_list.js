// Runs as cards. Choosing one triggers 'choose' with its id; a visitor's own can also be downloaded and deleted, which
// triggers 'delete'; 'refresh' comes when the page is looked at again. gradio gives `element`, `props`, `trigger` and `watch`; routing.js, download.js
// and to_player.js stand before.

const cards = element.querySelector(".pp-runs");

function small(text, label, onClick) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.setAttribute("aria-label", label);
  button.addEventListener("click", () => onClick(button));
  return button;
}

// The first press asks, the second deletes; looking elsewhere takes the question back.
function onDelete(button, run) {
  if (button.dataset.asked) {
    trigger("delete", { id: run.id });
    return;
  }
  button.dataset.asked = "yes";
  button.textContent = "Really delete?";
  const takeBack = () => {
    delete button.dataset.asked;
    button.textContent = "Delete";
  };
  button.addEventListener("blur", takeBack, { once: true });
}

async function onDownload(button, run) {
  button.disabled = true;
  const wrong = await download({ run: run.id, what: "zip" });
  button.disabled = false;
  button.textContent = wrong ? "Failed" : "Download";
  button.title = wrong;
}

function card(run) {
  const whole = document.createElement("div");
  whole.className = "pp-card";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "pp-card-open";
  button.title = run.prompt;
  const poster = document.createElement("img");
  poster.src = run.poster;
  poster.alt = "";
  const prompt = document.createElement("span");
  prompt.className = "pp-card-prompt";
  prompt.textContent = run.prompt;
  const seed = document.createElement("span");
  seed.className = "pp-card-seed";
  seed.textContent = [`seed ${run.seed}`, ...run.marks].join(" · ");
  button.append(poster, prompt, seed);
  button.addEventListener("click", () => {
    trigger("choose", { id: run.id });
    toPlayer();
  });
  whole.append(button);
  if (run.is_own) {
    const actions = document.createElement("div");
    actions.className = "pp-card-actions";
    actions.append(
      small("Download", `Download ${run.prompt}`, (pressed) => onDownload(pressed, run)),
      small("Delete", `Delete ${run.prompt}`, (pressed) => onDelete(pressed, run)),
    );
    whole.append(actions);
  }
  return whole;
}

function fill(runs) {
  cards.replaceChildren(...(runs || []).map(card));
}

// Meanwhile another tab, or the command line, may have made or deleted one.
if (element.closest("#history")) {
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") trigger("refresh", {});
  });
}
watch("value", () => fill(props.value));
fill(props.value);
