// Progress on the landing page: quizzes as the chapters' pages recorded them, exercises as ticked.
// What there is stands in the page as JSON; what was done stays in this browser.

const COURSE = JSON.parse(document.getElementById("course-pages").textContent);
const TICKS = "onebit.exercises";

// False where the browser forbids storage; the page then remembers until it is left.
function storageKeeps() {
  if (document.documentElement.dataset.storage === "page") return false;
  try {
    localStorage.setItem("onebit.trial", "1");
    localStorage.removeItem("onebit.trial");
    return true;
  } catch {
    return false;
  }
}

function load(key) {
  try {
    const value = JSON.parse(localStorage.getItem(key));
    return value && typeof value === "object" ? value : {};
  } catch {
    return {};
  }
}

const keeps = storageKeeps();
let ticks = load(TICKS);

function make(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;

// For each question 1 if the last answer was right, 0 if it was wrong, null if there was none.
function answers(quiz) {
  const chosen = load(`onebit.quiz.${quiz.name}`);
  return quiz.questions.map(({ text, right }) =>
    text in chosen ? Number(chosen[text] === right) : null);
}

function squares(values) {
  const row = make("span", { className: "bits", ariaHidden: "true" });
  for (const value of values) row.append(make("i", { className: ["off", "on"][value] ?? "" }));
  return row;
}

function quizLine(page) {
  const line = make("p", { className: "progress-quiz" });
  line.update = () => {
    const all = page.quizzes.flatMap(answers);
    const right = all.filter((value) => value === 1).length;
    const given = all.filter((value) => value !== null).length;
    const said = given === 0 ? `${plural(all.length, "question", "questions")}, not answered yet`
      : `${right} of ${all.length} right` + (given < all.length ? `, ${given} answered` : "");
    line.replaceChildren(squares(all), `Quiz: ${said}`);
    return { right, all: all.length };
  };
  return line;
}

function taskList(page, changed) {
  const summary = make("summary");
  const boxes = page.tasks.map(({ id, title }) => {
    const box = make("input", { type: "checkbox", value: id });
    box.addEventListener("change", () => {
      if (keeps) ticks = load(TICKS); // another tab may have ticked since
      if (box.checked) ticks[id] = true;
      else delete ticks[id];
      attempt(() => localStorage.setItem(TICKS, JSON.stringify(ticks)));
      changed();
    });
    return make("li", {}, make("label", {}, box, make("span", {}, make("b", {}, id), ` ${title}`)));
  });
  const list = make("details", {}, summary, make("ul", {}, ...boxes));
  list.update = () => {
    let done = 0;
    for (const box of list.querySelectorAll("input")) {
      box.checked = Boolean(ticks[box.value]);
      done += box.checked;
    }
    summary.replaceChildren(
      squares(page.tasks.map(({ id }) => (ticks[id] ? 1 : null))),
      `Exercises: ${done} of ${page.tasks.length} ticked`);
    return { done, all: page.tasks.length };
  };
  return list;
}

function showProgress(place) {
  const rows = COURSE.map((page) => {
    const name = page.number ? `${page.number}. ${page.title}` : page.title;
    const row = make("li", {}, make("a", { href: page.address, textContent: name }));
    if (page.quizzes.length) row.append(row.quiz = quizLine(page));
    if (page.tasks.length) row.append(row.tasks = taskList(page, update));
    return row;
  });
  const total = make("p", { className: "progress-total", role: "status" });
  const forget = make("button", { type: "button", textContent: "Forget my progress" });
  forget.addEventListener("click", reset);
  place.append(make("ol", {}, ...rows), total, forget);
  const note = storageNote();
  if (note) place.append(make("p", { className: "progress-note", textContent: note }));

  update();
  // Answers given in another tab, or before the reader came back to this page.
  addEventListener("storage", reread);
  addEventListener("pageshow", (event) => event.persisted && reread());

  function update() {
    let right = 0, questions = 0, done = 0, tasks = 0;
    for (const row of rows) {
      const quiz = row.quiz?.update(), list = row.tasks?.update();
      if (quiz) [right, questions] = [right + quiz.right, questions + quiz.all];
      if (list) [done, tasks] = [done + list.done, tasks + list.all];
    }
    const said = [`${right} of ${questions} quiz questions right`];
    if (tasks) said.push(`${done} of ${tasks} exercises ticked`);
    total.textContent = `In all: ${said.join(", ")}.`;
  }

  function reread() {
    ticks = load(TICKS);
    update();
  }

  function reset() {
    if (!confirm("Forget all quiz answers and all ticked exercises? This cannot be undone.")) return;
    ticks = {};
    const quizzes = COURSE.flatMap((page) => page.quizzes.map(({ name }) => `onebit.quiz.${name}`));
    for (const key of [TICKS, ...quizzes]) attempt(() => localStorage.removeItem(key));
    update();
    total.textContent = `Forgotten. ${total.textContent}`;
  }
}

function attempt(action) {
  try {
    action();
  } catch {
    // Without storage the ticks last as long as the page; the note says so.
  }
}

function storageNote() {
  if (!keeps) {
    return "Your browser does not let this page keep anything (a private window, perhaps, or a " +
      "page opened from disk): what you tick here lasts until you leave the page.";
  }
  if (location.protocol === "file:") {
    return "These pages are opened from disk. Some browsers then keep each page's answers apart, " +
      "and quizzes do not count here; from a web server, or with make serve, they do.";
  }
  return "";
}

showProgress(document.querySelector(".course-progress"));
