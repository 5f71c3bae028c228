// A link to two runs shows the tab that they are compared in; opening it asks for them.
() => {
  if (new URLSearchParams(location.search).has("a")) document.querySelector('[data-tab-id="compare"]')?.click();
}
