// Links to what stands further down the page go there. gradio's base address has no query: the browser would take them
// for links to another page, and load it anew, whenever the address bar carries what is on show.
() => {
  document.addEventListener("click", (event) => {
    const link = event.target.closest('.gradio-container a[href^="#"]');
    const place = link && document.getElementById(decodeURIComponent(link.getAttribute("href").slice(1)));
    if (!place) return;
    event.preventDefault();
    place.scrollIntoView();
  });
}
