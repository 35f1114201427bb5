// Paper is light: while a page is printed, it wears the light theme, figures and code included.
(() => {
  const page = document.documentElement;
  let screen;
  addEventListener("beforeprint", () => {
    screen = page.dataset.theme;
    page.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    page.dataset.theme = screen;
  });
})();
