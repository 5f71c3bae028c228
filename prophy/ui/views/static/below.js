// Below a path of a proxy that the app was not told of, its events would go to the top of the host and fail without a word.
() => {
  const here = location.pathname.replace(/\/[^/]*$/, "");
  const told = new URL(window.gradio_config?.root || location.origin, location.href).pathname.replace(/\/$/, "");
  if (here === told || document.querySelector("#below-a-path")) return;
  const notice = document.createElement("p");
  notice.id = "below-a-path";
  notice.className = "pp-notice is-error";
  notice.setAttribute("role", "alert");
  notice.textContent = `This page lies below ${here}, of which the app was not told, so nothing here will work. Start it with --root-path ${here}.`;
  document.body.prepend(notice);
}
