// The visitor's secret: whoever brings it may delete their runs and stop their generations. It is made here, kept in
// this browser where that is allowed, and never part of a link. Where storage is blocked, as in another site's frame,
// it lives as long as the page.
() => {
  const KEY = "prophy-visitor";
  const isSecret = (text) => typeof text === "string" && /^[0-9a-f]{64}$/.test(text);
  if (isSecret(window.prophyVisitor)) return window.prophyVisitor;
  const bytes = Array.from(crypto.getRandomValues(new Uint8Array(32)));
  const made = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  let kept = null;
  try {
    if (!isSecret(localStorage.getItem(KEY))) localStorage.setItem(KEY, made);
    kept = localStorage.getItem(KEY); // the first one's, if two pages opened at once
  } catch {
    // storage is blocked, or full
  }
  window.prophyVisitor = isSecret(kept) ? kept : made;
  return window.prophyVisitor;
}
