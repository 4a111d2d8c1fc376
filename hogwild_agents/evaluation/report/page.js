// Shows transcripts. Text from models becomes text nodes, never markup.
"use strict";
(() => {
  const index = document.getElementById("index");
  if (!index) return;
  const entries = JSON.parse(index.textContent);
  const at = (id) => document.getElementById(id);
  const [problem, strategy, seed] = ["problem", "strategy", "seed"].map(at);
  const unique = (values) => [...new Set(values)];
  const percent = (share) => `${Math.round(100 * share)} %`;

  function element(tag, className, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.map((child) =>
      child instanceof Node ? child : document.createTextNode(String(child))));
    return node;
  }

  function mark(score) {
    return score === null ? "–" : score >= 1 ? "✓" : score > 0 ? percent(score) : "✗";
  }

  function fill(select, values, label, choice) {
    select.replaceChildren(...values.map((value) => {
      const option = element("option", "", label(value));
      option.value = value;
      return option;
    }));
    select.value = values.map(String).includes(String(choice)) ? choice : values[0];
  }

  function box(title, text, kind = "") {
    return element("div", `box ${kind}`, element("h3", "", title), element("p", "text", text));
  }

  function passes(step) {
    if (step.begun === null) return "";
    return step.ended === null ? ` from pass ${step.begun}` : ` passes ${step.begun}–${step.ended}`;
  }

  function card(step, colour) {
    const heading = element("h3", "", element("b", "", step.worker));
    heading.append((step.index === null ? "" : ` [${step.index}]`) + passes(step));
    const node = element("article", `step s${colour % 8}`, heading);
    if (step.asked || step.answer) {
      const answer = step.answer ? `answered: ${step.answer}` : "not answered";
      node.append(element("p", "interrupt text", element("b", "", "interrupt"), step.asked.trim(),
        element("b", "", answer)));
    }
    node.append(element("p", "text", step.text.trim()));
    return node;
  }

  // A row begins where a step begins; a step spans the rows of its passes.
  function lanes(workers, steps) {
    const grid = element("div", "lanes");
    grid.style.gridTemplateColumns = `3.2em repeat(${workers.length}, minmax(${
      workers.length > 5 ? "150px" : 0}, 1fr))`;
    if (workers.length > 5) grid.classList.add("many");
    const length = steps.reduce((sum, step) => sum + step.text.length, 0) || 1;
    workers.forEach((worker, n) => {
      const own = steps.filter((step) => step.worker === worker);
      const written = own.reduce((sum, step) => sum + step.text.length, 0);
      const count = `${own.length} ${own.length === 1 ? "step" : "steps"}`;
      const head = element("div", `lane s${n % 8}`, worker,
        element("small", "", `${count}, ${percent(written / length)} of the text`));
      head.style.gridArea = `1 / ${n + 2}`;
      grid.append(head);
    });
    const timed = steps.map((step, n) => ({
      step, n, begun: step.begun ?? n, ended: Math.max(step.ended ?? step.begun ?? n,
        step.begun ?? n),
    })).sort((a, b) => a.begun - b.begun || a.n - b.n);
    const starts = unique(timed.map((item) => item.begun)).sort((a, b) => a - b);
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
      const node = card(step, lane);
      node.style.gridArea = `${from + 2} / ${lane + 2} / ${to + 2}`;
      grid.append(node);
    }
    return grid;
  }

  function show(number) {
    const transcript = JSON.parse(at(`t${number}`).textContent);
    const workers = unique([...transcript.workers, ...transcript.steps.map((step) => step.worker)]);
    const right = transcript.score === null ? "" : transcript.score >= 1 ? "right" : "wrong";
    const verdict = { right: ", right", wrong: transcript.score > 0 ? `, ${percent(transcript.score)} right`
      : ", wrong" }[right] ?? "";
    const question = box("problem", transcript.question);
    question.classList.add("question");
    const parts = [
      question,
      element("div", "two", box(`answer${verdict}`, transcript.answer ?? "none", right),
        box("correct answer", transcript.truth)),
      transcript.steps.length ? lanes(workers, transcript.steps)
        : element("p", "none", "No steps were kept."),
    ];
    if (transcript.cut) {
      parts.push(element("p", "cut", `${transcript.cut.toLocaleString("en")} more characters are not shown.`));
    }
    if (transcript.reply) parts.push(box("reply", transcript.reply));
    at("transcript").replaceChildren(...parts);
  }

  function choose(choice, write) {
    const ofProblem = entries.filter((entry) => entry.problem === problem.value);
    const names = unique(ofProblem.map((entry) => entry.strategy));
    const scores = (some) => some.map((entry) => mark(entry.score)).join("");
    fill(strategy, names, (name) =>
      `${name}  ${scores(ofProblem.filter((entry) => entry.strategy === name))}`, choice.strategy);
    const seeds = ofProblem.filter((entry) => entry.strategy === strategy.value);
    fill(seed, seeds.map((entry) => entry.seed), (value) =>
      `${value}  ${scores(seeds.filter((entry) => entry.seed === value))}`, choice.seed);
    seed.closest(".field").hidden = seeds.length < 2;
    const chosen = { problem: problem.value, strategy: strategy.value, seed: seed.value };
    show(entries.findIndex((entry) => entry.problem === chosen.problem &&
      entry.strategy === chosen.strategy && String(entry.seed) === chosen.seed));
    if (write) history.replaceState(null, "", `#${new URLSearchParams(chosen)}`);
  }

  function choiceInAddress() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  }

  function start() {
    const choice = choiceInAddress();
    fill(problem, unique(entries.map((entry) => entry.problem)), String, choice.problem);
    choose(choice, false);
    if (choice.problem) at("reader").scrollIntoView();
  }

  function move(by) {
    const count = problem.options.length;
    problem.selectedIndex = (problem.selectedIndex + by + count) % count;
    choose({ strategy: strategy.value, seed: seed.value }, true);
  }

  at("previous").addEventListener("click", () => move(-1));
  at("next").addEventListener("click", () => move(1));
  for (const select of [problem, strategy, seed]) {
    select.addEventListener("change", () =>
      choose({ strategy: strategy.value, seed: seed.value }, true));
  }
  at("chooser").addEventListener("submit", (event) => event.preventDefault());
  at("chooser").hidden = false;
  window.addEventListener("hashchange", start);
  start();
})();
