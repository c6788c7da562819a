// Keyboard and screen-reader corrections to what the theme and the notebooks write.
document.addEventListener("DOMContentLoaded", () => {
  // The widgets ask for maths in the words of MathJax 2; this is their one sentence, translated.
  if (window.MathJax && !MathJax.Hub) {
    MathJax.Hub = { Queue: ([, , element]) => MathJax.startup.promise.then(() => MathJax.typesetPromise([element])) };
  }
  // docutils writes a list of papers whose entries are no items of a list.
  for (const paper of document.querySelectorAll("[role=list] > [role=doc-biblioentry]")) paper.setAttribute("role", "listitem");
  // What folds a cell has words of its own, which say more than "Toggle hidden content", and whoever speaks to a computer uses them.
  for (const fold of document.querySelectorAll("summary[aria-label]")) fold.removeAttribute("aria-label");
  // The arrows that unfold a part of the contents say nothing of which part it is.
  for (const fold of document.querySelectorAll("li.has-children > details > summary")) {
    fold.setAttribute("aria-label", `Pages below ${fold.closest("li").querySelector("a").textContent.trim()}`);
  }
  // Wide outputs scroll sideways: they must be reachable by keyboard.
  for (const box of document.querySelectorAll("div.output.text_html, div.highlight pre, .math-wrapper, .pst-scrollable-table-container")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
