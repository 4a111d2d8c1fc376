// The reader. Everything that a model wrote becomes a text node, never markup.
"use strict";
(() => {
  const index = document.getElementById("index");
  if (!index) return;
  const entries = JSON.parse(index.textContent);
  const at = (id) => document.getElementById(id);
  const [problem, strategy, seed] = ["problem", "strategy", "seed"].map(at);
  const unique = (values) => [...new Set(values)];
  const percent = (share) => `${Math.round(100 * share)} %`;

  function element(kind, name, ...children) {
    const made = document.createElement(kind);
    if (name) made.className = name;
    made.append(...children.map(String).map((text, n) =>
      children[n] instanceof Node ? children[n] : document.createTextNode(text)));
    return made;
  }

  function mark(score) {
    return score === null ? "–" : score >= 1 ? "✓" : score > 0 ? percent(score) : "✗";
  }

  function offer(select, values, label, wish) {
    select.replaceChildren(...values.map((value) => {
      const option = element("option", "", label(value));
      option.value = value;
      return option;
    }));
    select.value = values.map(String).includes(String(wish)) ? wish : values[0];
  }

  function box(title, text, kind = "") {
    return element("div", `box ${kind}`, element("h3", "", title), element("p", "text", text));
  }

  function passes(step) {
    if (step.begun === null) return "";
    return step.ended === null ? ` from pass ${step.begun}` : ` passes ${step.begun}–${step.ended}`;
  }

  function turn(step, colour) {
    const heading = element("h3", "", element("b", "", step.worker));
    heading.append((step.index === null ? "" : ` [${step.index}]`) + passes(step));
    const made = element("article", `turn s${colour % 8}`, heading);
    if (step.asked || step.answer) {
      const said = step.answer ? `answered: ${step.answer}` : "not answered";
      made.append(element("p", "asked text", element("b", "", "interrupt"), step.asked.trim(),
        element("b", "", said)));
    }
    made.append(element("p", "text", step.text.trim()));
    return made;
  }

  // Rows begin where a step begins or ends; a step spans the rows of its passes.
  function lanes(workers, steps) {
    const grid = element("div", "lanes");
    grid.style.gridTemplateColumns = `3.2em repeat(${workers.length}, minmax(${
      workers.length > 5 ? "150px" : 0}, 1fr))`;
    if (workers.length > 5) grid.classList.add("many");
    const letters = steps.reduce((sum, step) => sum + step.text.length, 0) || 1;
    workers.forEach((worker, n) => {
      const own = steps.filter((step) => step.worker === worker);
      const wrote = own.reduce((sum, step) => sum + step.text.length, 0);
      const steps_ = `${own.length} ${own.length === 1 ? "step" : "steps"}`;
      const head = element("div", `lane s${n % 8}`, worker,
        element("small", "", `${steps_}, ${percent(wrote / letters)} of the text`));
      head.style.gridArea = `1 / ${n + 2}`;
      grid.append(head);
    });
    const timed = steps.map((step, n) => ({
      step, n, begun: step.begun ?? n, ended: Math.max(step.ended ?? step.begun ?? n,
        step.begun ?? n),
    })).sort((one, other) => one.begun - other.begun || one.n - other.n);
    const starts = unique(timed.map((one) => one.begun)).sort((a, b) => a - b);
    const row = (pass) => starts.findIndex((start) => start >= pass);
    starts.forEach((start, n) => {
      const pass = element("div", "pass", start.toLocaleString("en"));
      pass.style.gridArea = `${n + 2} / 1`;
      grid.append(pass);
    });
    const free = workers.map(() => 0);
    for (const { step, begun, ended } of timed) {
      const lane = workers.indexOf(step.worker);
      const next = row(ended);
      const from = Math.max(row(begun), free[lane]);
      const to = Math.max(from + 1, next < 0 ? starts.length : next);
      free[lane] = to;
      const made = turn(step, lane);
      made.style.gridArea = `${from + 2} / ${lane + 2} / ${to + 2}`;
      grid.append(made);
    }
    return grid;
  }

  function show(number) {
    const read = JSON.parse(at(`t${number}`).textContent);
    const workers = unique([...read.workers, ...read.steps.map((step) => step.worker)]);
    const right = read.score === null ? "" : read.score >= 1 ? "right" : "wrong";
    const verdict = { right: ", right", wrong: read.score > 0 ? `, ${percent(read.score)} right`
      : ", wrong" }[right] ?? "";
    const question = box("problem", read.question);
    question.classList.add("question");
    const parts = [
      question,
      element("div", "two", box(`answer${verdict}`, read.answer ?? "none", right),
        box("truth", read.truth)),
      read.steps.length ? lanes(workers, read.steps)
        : element("p", "none", "No steps were kept."),
    ];
    if (read.cut) {
      parts.push(element("p", "cut", `${read.cut.toLocaleString("en")} more letters were cut.`));
    }
    if (read.reply) parts.push(box("reply", read.reply));
    at("transcript").replaceChildren(...parts);
  }

  function choose(wish, write) {
    const here = entries.filter((one) => one.problem === problem.value);
    const names = unique(here.map((one) => one.strategy));
    const scores = (some) => some.map((one) => mark(one.score)).join("");
    offer(strategy, names, (name) =>
      `${name}  ${scores(here.filter((one) => one.strategy === name))}`, wish.strategy);
    const seeds = here.filter((one) => one.strategy === strategy.value);
    offer(seed, seeds.map((one) => one.seed), (value) =>
      `${value}  ${scores(seeds.filter((one) => one.seed === value))}`, wish.seed);
    seed.closest(".field").hidden = seeds.length < 2;
    const chosen = { problem: problem.value, strategy: strategy.value, seed: seed.value };
    show(entries.findIndex((one) => one.problem === chosen.problem &&
      one.strategy === chosen.strategy && String(one.seed) === chosen.seed));
    if (write) history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
  }

  function wished() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  }

  function start() {
    const wish = wished();
    offer(problem, unique(entries.map((one) => one.problem)), String, wish.problem);
    choose(wish, false);
    if (wish.problem) at("reader").scrollIntoView();
  }

  function step(by) {
    const count = problem.options.length;
    problem.selectedIndex = (problem.selectedIndex + by + count) % count;
    choose({ strategy: strategy.value, seed: seed.value }, true);
  }

  at("back").addEventListener("click", () => step(-1));
  at("forth").addEventListener("click", () => step(1));
  for (const select of [problem, strategy, seed]) {
    select.addEventListener("change", () =>
      choose({ strategy: strategy.value, seed: seed.value }, true));
  }
  at("chooser").addEventListener("submit", (event) => event.preventDefault());
  at("chooser").hidden = false;
  window.addEventListener("hashchange", start);
  start();
})();
