// Tell require.js where the vendored widget runtime lies, so that it asks no server for it.
(() => {
  const folder = new URL("vendor/widgets/", document.currentScript.src).href;
  const embed = `${folder}embed-amd`;
  requirejs.config({
    paths: {
      anywidget: `${folder}anywidget`,
      "@jupyter-widgets/base": embed,
      "@jupyter-widgets/controls": embed,
      "@jupyter-widgets/base7": embed,
      "@jupyter-widgets/controls7": embed,
      "@jupyter-widgets/html-manager": embed,
      "@jupyter-widgets/html-manager/dist/libembed-amd": embed,
    },
  });
  // The widget manager typesets labels with MathJax 2's queue; the book has MathJax 3, and plain labels.
  window.MathJax ??= {};
  window.MathJax.Hub ??= { Queue() {}, Config() {}, Configured() {} };
})();
