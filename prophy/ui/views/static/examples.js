// Example prompts as chips; choosing one triggers 'choose' with its place in the list. to_player.js stands before.

const chips = element.querySelector(".pp-chips");

chips.replaceChildren(
  ...(props.value || []).map((example, i) => {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.className = "pp-chip";
    chip.title = example.prompt;
    for (const colour of example.colours) {
      const dot = document.createElement("i");
      dot.style.background = colour;
      chip.append(dot);
    }
    chip.append(example.label);
    chip.addEventListener("click", () => {
      trigger("choose", { index: i });
      toPlayer();
    });
    return chip;
  }),
);
