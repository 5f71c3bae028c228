// Below a path of a proxy that the app was not told of, its events would go to the top of the host and fail without a word.
addEventListener("load", () => {
  const here = location.pathname.replace(/\/[^/]*$/, "");
  const told = new URL(window.gradio_config?.root ?? location.href, location.href).pathname.replace(/\/$/, "");
  if (here === told || window.gradio_config === undefined) return;
  const notice = document.createElement("p");
  notice.className = "pp-notice is-error";
  notice.setAttribute("role", "alert");
  notice.textContent = `This page lies below ${here}, of which the app was not told, so that nothing here will work. Start it with --root-path ${here}.`;
  document.body.prepend(notice);
});
