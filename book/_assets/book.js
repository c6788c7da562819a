// Keyboard and screen-reader corrections to what the theme and the notebooks write.
document.addEventListener("DOMContentLoaded", () => {
  // Wide outputs scroll sideways: they must be reachable by keyboard.
  for (const box of document.querySelectorAll("div.output.text_html, div.highlight pre, .math-wrapper")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
