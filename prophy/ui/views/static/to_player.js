// Brings the player into view when something was chosen for it: cards and examples may stand a screen away.
function toPlayer() {
  const player = document.querySelector("#routing-view");
  const isStill = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (player) player.scrollIntoView({ block: "start", behavior: isStill ? "auto" : "smooth" });
}
