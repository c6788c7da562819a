// While plotly.min.js runs, `define.amd` must look absent: require.js is on the page, and a library that finds it
// registers itself there instead of becoming window.Plotly. Only that one script sees the absence, so that modules which
// require.js loads at the same time are not disturbed. (`define` itself is a global variable and cannot be given a
// getter.) A script element works from file:// too, where fetch() does not.
window.pruningPlotly = window.pruningPlotly || new Promise(function (done, failed) {
  if (window.Plotly) { done(window.Plotly); return; }
  var page = document.documentElement, options = window.DOCUMENTATION_OPTIONS || {};
  var root = page.dataset.content_root || options.URL_ROOT || page.dataset.url_root || "./";
  if (root.slice(-1) !== "/") root += "/";
  var script = document.createElement("script"), define = window.define, amd = define && define.amd;
  if (amd) Object.defineProperty(define, "amd", {configurable: true, enumerable: true,
    get: function () { return document.currentScript === script ? undefined : amd; }});
  function restore() {
    if (amd) Object.defineProperty(define, "amd", {configurable: true, enumerable: true, writable: true,
      value: amd});
  }
  script.onload = function () { restore(); window.Plotly ? done(window.Plotly) : failed(); };
  script.onerror = function () { restore(); failed(); };
  script.src = root + "_static/lib/plotly.min.js";
  document.head.appendChild(script);
});

window.pruningSlider = function (id, spec, names, per) {
  var box = document.getElementById(id), plot = box.querySelector(".plot");
  var input = box.querySelector("input"), output = box.querySelector("output");
  function chosen() { return Number(input.value); }
  function label() {
    output.textContent = names[chosen()];
    input.setAttribute("aria-valuetext", names[chosen()]);
  }
  function visible() { return spec.data.map(function (_, i) { return Math.floor(i / per) === chosen(); }); }
  label();
  window.pruningPlotly.then(function (Plotly) {
    Plotly.newPlot(plot, spec.data, spec.layout, {responsive: true, displaylogo: false});
    input.disabled = false;
    function show() { label(); Plotly.restyle(plot, {visible: visible()}); }
    var button = box.querySelector("button.play"), clock = null;
    function stop() { clearInterval(clock); clock = null; if (button) button.textContent = "\u25b6 play"; }
    input.addEventListener("input", function () { stop(); show(); });
    if (button) {
      button.disabled = false;
      button.addEventListener("click", function () {
        if (clock) { stop(); return; }
        if (chosen() === names.length - 1) { input.value = 0; show(); }
        button.textContent = "\u23f8 pause";
        clock = setInterval(function () {
          input.value = chosen() + 1; show();
          if (chosen() === names.length - 1) stop();
        }, 600);
      });
    }
  }, function () {
    plot.textContent = "plotly.js was not found: open this page in the built book or in JupyterLab.";
  });
};
