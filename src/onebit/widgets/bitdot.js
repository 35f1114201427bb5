// Two ±1 vectors as rows of toggles; XNOR, products, popcount and dot product follow every flip.

const GROUP = 8;
const bit = (sign) => (sign > 0 ? 1 : 0);

function toggle(name, i, sign, flip) {
  return h("button", {
    type: "button", class: `ob-bit ${sign > 0 ? "ob-on" : "ob-off"}`, tabindex: -1,
    "data-row": name, "data-i": i, "aria-pressed": String(sign > 0),
    "aria-label": `${bit(sign)} ${signed(sign)}, ${name}, element ${i + 1}`, onclick: flip,
  }, h("b", {}, String(bit(sign))), " ", h("small", {}, signed(sign)));
}

const shown = (text, on, extra = "") =>
  h("span", { class: `ob-cell ${on ? "ob-on" : "ob-off"} ${extra}` }, text);

// One group of at most eight columns: rows a, b, XNOR, product. Tail columns belong to no element.
function group(start, stop, k, a, b, flip) {
  const columns = Array.from({ length: stop - start }, (_, j) => start + j);
  const row = (title, cell) =>
    h("div", { class: "ob-row" }, h("span", { class: "ob-head" }, title), columns.map(cell));
  const tail = (text, on) => shown(text, on, "ob-tail");
  return h("div", { class: "ob-word" },
    row("a", (i) => (i < k ? toggle("a", i, a[i], flip) : tail("0", false))),
    row("b", (i) => (i < k ? toggle("b", i, b[i], flip) : tail("0", false))),
    row("XNOR", (i) => (i < k ? shown(String(bit(a[i] * b[i])), a[i] * b[i] > 0) : tail("1", true))),
    row("a·b", (i) => (i < k ? shown(signed(a[i] * b[i]), a[i] * b[i] > 0) : tail("pad", false))),
  );
}

function totals(k, bits, a, b) {
  const agree = a.filter((sign, i) => sign === b[i]).length;
  const dot = 2 * agree - k;
  const tail = bits - k;
  const line = (formula, what) => h("li", {}, h("code", {}, formula), " ", h("span", {}, what));
  const lines = [line(`Σ a·b = ${minus(dot)}`, "sum of the products")];
  if (tail === 0) {
    lines.push(
      line(`popcount = ${agree}`, "ones in the XNOR row"),
      line(`2·${agree} − ${k} = ${minus(dot)}`, "✓ the same dot product"),
    );
  } else {
    const count = agree + tail;
    lines.push(
      line(`popcount = ${count}`, `ones in the XNOR row, ${tail} of them padding`),
      line(`2·${count} − ${bits} = ${minus(2 * count - bits)}`, "✗ wrong: padding counted as agreement"),
      line(`2·(${count} − ${tail}) − ${k} = ${minus(dot)}`, "✓ tail masked away"),
      line(`${k} − 2·${k - agree} = ${minus(dot)}`, "✓ differences counted: padding has none"),
    );
  }
  return { dot, agree, list: h("ul", { class: "ob-totals" }, lines) };
}

function render({ model, el }) {
  keepKeys(el);
  const k = model.get("a").length;
  const bits = model.get("bits");
  const first = { a: model.get("a"), b: model.get("b") };
  let focus = { row: "a", i: 0 };
  const words = h("div", { class: "ob-words" });
  const sums = h("div");
  const heard = h("p", { class: "ob-readout", role: "status", "aria-live": "polite" });

  const set = (name, values) => {
    model.set(name, values);
    model.save_changes();
  };
  const flip = (event) => {
    const { row, i } = event.currentTarget.dataset;
    focus = { row, i: +i };
    set(row, model.get(row).map((sign, j) => (j === +i ? -sign : sign)));
  };
  const target = () => words.querySelector(`[data-row=${focus.row}][data-i="${focus.i}"]`);
  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -k, End: k };
  const move = (event) => {
    const from = event.target.dataset;
    if (!from.row) return;
    if (event.key in steps) {
      focus = { row: from.row, i: Math.min(Math.max(+from.i + steps[event.key], 0), k - 1) };
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      focus = { row: event.key === "ArrowUp" ? "a" : "b", i: +from.i };
    } else return;
    event.preventDefault();
    words.querySelectorAll("button").forEach((button) => (button.tabIndex = -1));
    target().tabIndex = 0;
    target().focus();
  };

  function draw() {
    const [a, b] = [model.get("a"), model.get("b")];
    const focused = words.contains(document.activeElement);
    const shownBits = bits - k > GROUP ? k : bits;
    const groups = [];
    for (let start = 0; start < shownBits; start += GROUP) {
      groups.push(group(start, Math.min(start + GROUP, shownBits), k, a, b, flip));
    }
    if (shownBits < bits) {
      groups.push(h("p", { class: "ob-word ob-tailnote" },
        `then ${bits - k} bits of padding: 0 in a, 0 in b, so 1 in the XNOR row`));
    }
    words.replaceChildren(...groups);
    target().tabIndex = 0;
    if (focused) target().focus();
    const { dot, agree, list } = totals(k, bits, a, b);
    sums.replaceChildren(list);
    heard.textContent = `${agree} of ${k} agree · dot = ${minus(dot)}`;
  }

  el.classList.add("ob", "ob-bitdot");
  el.append(
    h("p", { class: "ob-hint" }, "Click a bit to flip it. With the keyboard: arrows move, space flips."),
    h("div", { role: "group", "aria-label": `vectors a and b, ${k} elements each`, onkeydown: move }, words),
    heard, sums,
    h("p", { class: "ob-buttons" },
      h("button", { type: "button", onclick: () => set("b", model.get("b").map((sign) => -sign)) }, "flip all of b"),
      h("button", { type: "button", onclick: () => set("b", [...model.get("a")]) }, "set b = a"),
      h("button", { type: "button", onclick: () => { set("a", first.a); set("b", first.b); } }, "reset")),
  );
  draw();
  model.on("change:a", draw);
  model.on("change:b", draw);
}

export default { render };
