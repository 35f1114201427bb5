// Questions with one right option each; every option has an explanation; answers are remembered.

function question(spec, i, total, choice, check) {
  const group = `onebit-${Math.random().toString(36).slice(2)}`;
  const verdict = h("div", { class: "ob-verdict", role: "status", "aria-live": "polite" });
  const inputs = spec.options.map((_, j) => h("input", { type: "radio", name: group, value: j }));
  const button = h("button", { type: "button", "aria-label": `check question ${i + 1}` }, "Check");

  function explain(j) {
    const { right, why } = spec.options[j];
    const others = spec.options.filter((_, other) => other !== j);
    verdict.className = `ob-verdict ${right ? "ob-right" : "ob-wrong"}`;
    verdict.replaceChildren(
      h("p", {}, h("b", {}, right ? "✓ Right. " : "✗ Not this one. "), why),
      ...(right
        ? [h("details", {}, h("summary", {}, "Why not the others?"),
            h("ul", {}, others.map((option) => h("li", {}, h("b", {}, option.text), ` — ${option.why}`))))]
        : []),
    );
  }
  button.addEventListener("click", () => {
    const j = inputs.findIndex((input) => input.checked);
    if (j < 0) {
      verdict.className = "ob-verdict";
      verdict.replaceChildren(h("p", {}, "Choose an answer first."));
      return;
    }
    explain(j);
    check(i, j);
  });
  if (choice != null && inputs[choice]) {
    inputs[choice].checked = true;
    explain(choice);
  }
  return h("fieldset", {},
    h("legend", {}, `${total > 1 ? `${i + 1}. ` : ""}${spec.text}`),
    spec.options.map((option, j) => h("label", {}, inputs[j], h("span", {}, option.text))),
    h("p", { class: "ob-buttons" }, button), verdict);
}

function render({ model, el }) {
  keepKeys(el);
  const questions = model.get("questions");
  const kept = memory(`quiz.${model.get("name")}`);
  // An answer belongs to its question's words: an edited question starts afresh.
  const load = () => kept.load() ?? {};
  const score = h("p", { class: "ob-readout", role: "status", "aria-live": "polite" });
  const list = h("div");

  function tell() {
    const answers = load();
    const right = questions.filter(({ text, options }) => options[answers[text]]?.right).length;
    score.textContent = Object.keys(answers).length ? `${right} of ${questions.length} right` : "";
  }
  function check(i, j) {
    kept.save({ ...load(), [questions[i].text]: j });
    tell();
  }
  function draw() {
    const answers = load();
    list.replaceChildren(...questions.map((spec, i) =>
      question(spec, i, questions.length, answers[spec.text], check)));
    tell();
  }
  el.classList.add("ob", "ob-quiz");
  el.append(list, h("div", { class: "ob-buttons" }, score,
    h("button", { type: "button", onclick: () => { kept.clear(); draw(); } }, "Start again")));
  draw();
}

export default { render };
