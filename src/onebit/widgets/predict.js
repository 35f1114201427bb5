// Predict a number, lock it in, then see the computed one and the gap between the two.

function numberLine(low, high, guess, answer, show) {
  const x = (value) => `${(100 * (Math.min(Math.max(value, low), high) - low)) / (high - low)}%`;
  return h("div", { class: "ob-line", "aria-hidden": "true" },
    h("span", { class: "ob-guess", style: `left:${x(guess)}` }),
    h("span", { class: "ob-truth", style: `left:${x(answer)}` }),
    h("small", { class: "ob-low" }, show(low)), h("small", { class: "ob-high" }, show(high)));
}

function render({ model, el }) {
  keepKeys(el);
  const names = ["low", "high", "step", "unit", "digits", "answer", "question", "reveal"];
  const [low, high, step, unit, digits, answer, question, reveal] = names.map((name) => model.get(name));
  const kept = memory(`predict.${question}`);
  const show = (value) => `${minus(value.toFixed(digits))}${unit && ` ${unit}`}`;
  const slider = h("input", { type: "range", min: low, max: high, step, "aria-label": question });
  const chosen = h("span", { class: "ob-readout" });
  const lock = h("button", { type: "button" }, "Lock in my prediction");
  const again = h("button", { type: "button", hidden: true }, "Predict again");
  const verdict = h("div", { class: "ob-verdict", role: "status", "aria-live": "polite" });

  const follow = () => {
    chosen.textContent = show(+slider.value);
    slider.setAttribute("aria-valuetext", chosen.textContent);
  };
  function open(guess) {
    const gap = guess - answer;
    const size = `${Math.abs(gap).toFixed(digits)} ${unit === "%" ? "percentage points" : unit}`.trim();
    const side = Number(gap.toFixed(digits)) === 0 ? "No gap at all." : `Gap: ${size}, too ${gap > 0 ? "high" : "low"}.`;
    verdict.replaceChildren(
      numberLine(low, high, guess, answer, show),
      h("p", {}, h("span", { class: "ob-key ob-guess" }), "You predicted ", h("b", {}, show(guess)), "; ",
        h("span", { class: "ob-key ob-truth" }), "computed: ", h("b", {}, show(answer)), `. ${side}`),
      ...(reveal ? [h("p", {}, reveal)] : []),
    );
    slider.disabled = lock.hidden = true;
    again.hidden = false;
  }
  function close() {
    verdict.replaceChildren();
    slider.value = (low + high) / 2;
    slider.disabled = lock.hidden = false;
    again.hidden = true;
    follow();
  }
  slider.addEventListener("input", follow);
  lock.addEventListener("click", () => {
    kept.save(+slider.value);
    open(+slider.value);
    again.focus();
  });
  again.addEventListener("click", () => {
    kept.clear();
    close();
    slider.focus();
  });
  el.classList.add("ob", "ob-predict");
  el.append(h("p", { class: "ob-question" }, question), h("div", { class: "ob-slide" }, slider, chosen),
    h("p", { class: "ob-buttons" }, lock, again), verdict);
  close();
  const before = kept.load();
  if (typeof before === "number") {
    slider.value = before;
    follow();
    open(before);
  }
}

export default { render };
