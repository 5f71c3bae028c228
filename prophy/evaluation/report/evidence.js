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
