// One picture of several is shown: the one at the slider's place. Without scripts the page shows the first choice.
window.pruningFrames = function (id, names) {
  var box = document.getElementById(id), input = box.querySelector("input"), output = box.querySelector("output");
  var pictures = box.querySelectorAll("img");
  function show() {
    var chosen = Number(input.value);
    pictures.forEach(function (picture, i) { picture.hidden = i !== chosen; });
    output.textContent = names[chosen];
    input.setAttribute("aria-valuetext", names[chosen]);
  }
  input.addEventListener("input", show);
  input.disabled = false;
  show();
};
