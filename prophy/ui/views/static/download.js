// Files that the server makes, kept by the browser. gradio gives `server`; bytesOf is routing.js's.

// Ask for a file of a run and hand it to the visitor; returns what went wrong, or an empty text.
async function download(asked) {
  let sent;
  try {
    sent = await server.export_run(asked);
  } catch {
    return "the server did not answer: try again";
  }
  if (sent.error) return sent.error;
  const address = URL.createObjectURL(new Blob([bytesOf(sent.data)], { type: sent.type }));
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = sent.name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  return "";
}
