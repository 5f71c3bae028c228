// Names the words of the prompt that the model has never seen, while they are typed. The value is every word it knows;
// none for a model that spells. words.js stands before this text.

const said = element.querySelector(".pp-typed");
const AGAIN_MS = 500; // an example may replace the text, which no event of the browser tells
let again = 0;

function say(box) {
  // The word at the end may still grow, as long as the typing goes on there.
  const isTyping = document.activeElement === box && box.selectionEnd === box.value.length;
  const words = unknownWords(box.value, props.value || [], isTyping);
  said.hidden = words.length === 0;
  said.textContent = `The model has never seen: ${words.join(", ")}.`;
  clearTimeout(again);
  if (words.length) again = setTimeout(() => say(box), AGAIN_MS);
}

for (const name of ["input", "focusout"]) {
  document.addEventListener(name, ({ target }) => {
    if (target.matches("#prompt textarea")) setTimeout(() => say(target));
  });
}
watch("value", () => {
  const box = document.querySelector("#prompt textarea");
  if (box) say(box);
});
