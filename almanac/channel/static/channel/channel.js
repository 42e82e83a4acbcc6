// The page The channel: live numbers from one stream, and forms that answer in place.
// Without this script every form still works; it answers with the whole page.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const announcer = document.getElementById("announcer");
const seen = new Set();

function say(text) {
  announcer.textContent = text;
}

function part(element, name) {
  return element.querySelector(`[data-part="${name}"]`);
}

// Live numbers

function showStores(state) {
  for (const [name, text] of Object.entries(state.texts)) {
    for (const place of document.querySelectorAll(`[data-text="${name}"]`)) {
      if (place.textContent !== text) place.textContent = text;
    }
  }
  document.body.dataset.present = state.present;
  document.body.dataset.proven = state.proven;
}

function showWork(work) {
  const box = document.getElementById("work");
  if (!box) return;
  const progress = document.getElementById("progress");
  box.hidden = false;
  box.dataset.failed = work.failed;
  part(box, "stage").textContent = work.stage;
  part(box, "rows").textContent = work.rows;
  progress.hidden = work.ended;
  if (work.total) {
    progress.max = work.total;
    progress.value = work.done;
  } else {
    progress.removeAttribute("value");
  }
  if (work.ended || work.stage !== box.dataset.said) say(work.stage);
  box.dataset.said = work.stage;
  for (const button of document.querySelectorAll('[data-ask="work"] button')) {
    setBusy(button, !work.ended);
  }
}

function follow() {
  const link = document.getElementById("link");
  const stream = new EventSource(document.body.dataset.stream);
  link.hidden = false;
  stream.addEventListener("open", () => {
    link.dataset.lost = false;
    link.textContent = "live";
  });
  stream.addEventListener("error", () => {
    link.dataset.lost = true;
    link.textContent = "reconnecting";
  });
  stream.addEventListener("stores", (event) => showStores(JSON.parse(event.data)));
  stream.addEventListener("work", (event) => showWork(JSON.parse(event.data)));
  stream.addEventListener("journey", (event) => showJourney(JSON.parse(event.data)));
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}

// A journey: one event on its way

function showJourney(journey) {
  if (seen.has(journey.id)) return;
  seen.add(journey.id);
  const list = document.getElementById("journeys");
  const item = document.getElementById("journey").content.cloneNode(true).firstElementChild;
  item.querySelector("b").textContent = journey.event;
  item.querySelector("span").textContent = journey.way;
  list.prepend(item);
  while (list.children.length > 6) list.lastElementChild.remove();
  document.getElementById("travel").textContent = journey.replica;
  for (const drawing of document.querySelectorAll(".drawing")) runDrop(drawing);
}

function runDrop(drawing) {
  if (still.matches || !drawing.getClientRects().length) return;
  const course = drawing.querySelector(".course");
  const drop = drawing.querySelector(".drop");
  const length = course.getTotalLength();
  const start = performance.now();
  drop.classList.add("runs");
  const step = (now) => {
    const way = Math.min(1, (now - start) / 1400);
    const point = course.getPointAtLength(length * way * way * (3 - 2 * way));
    drop.setAttribute("cx", point.x);
    drop.setAttribute("cy", point.y);
    if (way < 1) requestAnimationFrame(step);
    else drop.classList.remove("runs");
  };
  requestAnimationFrame(step);
}

// Forms

function setBusy(button, busy) {
  // Not `disabled`: that would take the keyboard's focus away.
  if (busy) button.setAttribute("aria-disabled", "true");
  else button.removeAttribute("aria-disabled");
}

async function ask(form) {
  const response = await fetch(form.action, {
    method: "POST",
    headers: { Accept: "application/json" },
    body: new FormData(form),
  });
  const type = response.headers.get("Content-Type") || "";
  const body = type.startsWith("application/json") ? await response.json() : {};
  if (!response.ok && !body.errors) {
    throw new Error(body.error || `The server answered ${response.status}. Reload the page.`);
  }
  return body;
}

function showErrors(form, errors) {
  for (const place of form.querySelectorAll("[data-errors]")) {
    const found = errors[place.dataset.errors] || [];
    place.textContent = found.map((each) => each.message).join(" ");
    const field = form.elements[place.dataset.errors];
    if (!field) continue;
    if (found.length) {
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-describedby", place.id);
    } else {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-describedby");
    }
  }
  form.querySelector('[aria-invalid="true"]')?.focus();
}

async function write(form) {
  const answer = await ask(form);
  showErrors(form, answer.errors || {});
  if (answer.errors) return;
  showJourney(answer);
  say(`${answer.event}: ${answer.way}`);
  form.elements.time.value = new Date().toISOString().slice(11, 19);
  form.elements.date.value = new Date().toISOString().slice(0, 10);
}

async function race(form) {
  const contest = form.closest(".contest");
  showResult(contest, await ask(form));
}

function showResult(contest, result) {
  for (const lane of ["source", "replica"]) {
    const bar = contest.querySelector(`.lane.${lane}`);
    bar.max = result.slowest_ms;
    bar.value = result[`${lane}_ms`];
    part(contest, lane).textContent = result[lane];
  }
  contest.dataset.equal = result.equal;
  part(contest, "tick").textContent = result.equal ? "✓" : "";
  part(contest, "verdict").textContent = result.verdict;
  part(contest, "rows").textContent = result.equal ? `${result.rows} equal` : result.rows;
  const question = contest.querySelector("h3").textContent;
  say(`${question}: ${result.verdict}, ${result.equal ? "answers equal" : "answers differ"}.`);
}

async function work(form) {
  await ask(form);
}

const asking = { write, race, work };

async function submit(form) {
  const button = form.querySelector("button");
  if (button.getAttribute("aria-disabled")) return;
  setBusy(button, true);
  try {
    await asking[form.dataset.ask](form);
  } catch (error) {
    tell(form, error.message);
  } finally {
    if (form.dataset.ask !== "work") setBusy(button, false);
    else if (document.getElementById("progress").hidden) setBusy(button, false);
  }
}

function tell(form, message) {
  const contest = form.closest(".contest");
  const place = contest ? part(contest, "verdict") : form.querySelector("[data-errors]");
  if (place) place.textContent = message;
  say(message);
}

document.addEventListener("submit", (event) => {
  if (!event.target.dataset.ask) return;
  event.preventDefault();
  submit(event.target);
});

const all = document.querySelector("[data-race-all]");
all.hidden = false;
all.addEventListener("click", async () => {
  if (all.getAttribute("aria-disabled")) return;
  setBusy(all, true);
  for (const form of document.querySelectorAll('[data-ask="race"]')) await submit(form);
  setBusy(all, false);
});

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
    say("Copied.");
  });
}

follow();
