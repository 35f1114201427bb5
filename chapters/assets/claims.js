// The filter above the checked claims: words to search for, and one button for each group.
// It is built from the list of groups that stands there without JavaScript; all claims are shown then.

function filterClaims(list) {
  const groups = [...list.querySelectorAll("a[href^='#']")].map((link) => {
    const section = document.getElementById(link.hash.slice(1)).closest("section");
    const claims = [...section.querySelectorAll(":scope > section")];
    return { name: link.textContent, section, claims };
  });
  const claims = groups.flatMap((group) => group.claims);
  const words = new Map(claims.map((claim) => [claim, textOf(claim)]));

  const box = element("input", { type: "search", id: "claims-words", autocomplete: "off" });
  const label = element("label", { htmlFor: box.id, textContent: "Search the claims" });
  const buttons = [{ name: "All" }, ...groups].map((group) => {
    const button = element("button", { type: "button", textContent: group.name });
    button.addEventListener("click", () => choose(button));
    return button;
  });
  const row = element("div", { className: "claims-groups", role: "group", ariaLabel: "Group" });
  row.append(...buttons);
  const status = element("p", { role: "status" });
  box.addEventListener("input", show);
  list.setAttribute("role", "search");
  list.replaceChildren(label, box, row, status);
  // A link to a claim that is filtered away, from the address or the table of contents, shows all.
  addEventListener("hashchange", () => {
    if (document.getElementById(location.hash.slice(1))?.closest("[hidden]")) reset();
  });
  choose(buttons[0]);

  function choose(chosen) {
    for (const button of buttons) button.ariaPressed = String(button === chosen);
    show();
  }

  function show() {
    const wanted = plain(box.value).split(" ").filter(Boolean);
    const chosen = buttons.findIndex((button) => button.ariaPressed === "true");
    let shown = 0;
    groups.forEach((group, n) => {
      let here = 0;
      for (const claim of group.claims) {
        const fits = wanted.every((word) => words.get(claim).includes(word));
        claim.hidden = !(fits && (chosen === 0 || chosen === n + 1));
        if (!claim.hidden) here += 1;
      }
      group.section.hidden = here === 0;
      shown += here;
    });
    status.textContent = shown
      ? `${shown} of ${claims.length} claims`
      : `None of the ${claims.length} claims fits. Search for fewer words, or choose All.`;
  }

  function reset() {
    box.value = "";
    choose(buttons[0]);
    document.getElementById(location.hash.slice(1)).scrollIntoView();
  }
}

// What a claim says, without the code and the outputs below it.
function textOf(claim) {
  const prose = [...claim.children].filter((child) => !child.classList.contains("cell"));
  return plain(prose.map((child) => child.textContent).join(" "));
}

function plain(text) {
  return text.toLowerCase().replace(/[\s\u2009\u202f]+/g, " ").trim();
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

filterClaims(document.querySelector(".claims-filter"));
