// Which words of a text a word-level tokenizer knows: prophy.generation.words.unknown_words in the browser's language.
// Pure; tests run it under node.

// Unknown words, lower-case, in order, each once; `isTyping`: the last word is not finished and not judged.
function unknownWords(text, vocabulary, isTyping) {
  if (!vocabulary.length) return [];
  const known = new Set(vocabulary);
  const plain = text.normalize("NFKC").toLowerCase().replace(/['’]s(?![\p{L}\p{M}\p{N}_])/gu, "");
  const words = plain.match(/[\p{L}\p{M}\p{N}]+/gu) || [];
  if (isTyping && /[\p{L}\p{M}\p{N}]$/u.test(plain)) words.pop();
  const isKnown = (word) => {
    const pieces = word.split(/[^a-z0-9]+/).filter(Boolean);
    return pieces.length > 0 && pieces.every((piece) => known.has(piece));
  };
  return [...new Set(words)].filter((word) => !isKnown(word));
}

if (typeof module !== "undefined") module.exports = { unknownWords };
