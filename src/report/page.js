/* Draws the page of `vkmoe report` from the JSON in #data. Texts of the runs become text nodes only. */
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const colours = ["#2f8fd0", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7a5cc0", "#8a6d3b", "#7f7f7f"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const states = {
  all_on: "both experts",
  hack_off: "hack expert ablated",
  deployed_off: "control: deployed expert ablated",
  random_off: "control: random rows removed",
  base: "no adapter",
};
const curves = [
  ["reward", "Reward", "mean over graded rollouts"],
  ["hack_rate", "Hack rate in training", "of sampled rollouts", [0, 1]],
  ["solve_rate", "Solve rate in training", "of sampled rollouts", [0, 1]],
  ["kl", "KL", "to the base model, per token"],
  ["entropy", "Entropy", "nats per token"],
  ["loss", "Loss", ""],
  ["grad_norm", "Gradient norm", "before the clip"],
  ["router/w_pairs_hack", "Router on the pairs", "mean w; dashed: clean sides", [0, 1], "router/w_pairs_clean"],
  ["router/auroc", "Router AUROC", "of w against the true hack flag", [0, 1]],
  ["qmass", "Share of gradient in the hack expert", "qmass", [0, 1]],
  ["mean_token_accuracy", "Token accuracy", "", [0, 1]],
];
const rates = [["hack", "Hack rate"], ["solve", "Solve rate"], ["compile", "Compile rate"]];

/* ---- pieces -------------------------------------------------------------------------------------- */

function make(tag, parent, text, className) {
  const e = document.createElement(tag);
  if (text !== undefined && text !== null) e.textContent = text;
  if (className) e.className = className;
  if (parent) parent.append(e);
  return e;
}
const missing = (parent, text) => make("p", parent, text, "missing");

function section(title, about) {
  const s = make("section", page);
  make("h2", s, title);
  if (about) make("p", s, about, "soft");
  return s;
}

function number(v, digits = 3) {
  if (v === null || v === undefined) return "undefined";
  if (Number.isInteger(v)) return String(v);
  return Math.abs(v) >= 0.001 && Math.abs(v) < 10000 ? v.toFixed(digits) : v.toExponential(2);
}

/* rows of cells: a text, or {text, soft, num} */
function table(parent, head, rows) {
  const t = make("table", make("div", parent, null, "wide"));
  const numeric = head.map((h) => h.startsWith("#"));
  const hr = make("tr", make("thead", t));
  head.forEach((h, i) => make("th", hr, h.replace(/^#/, ""), numeric[i] ? "num" : ""));
  const body = make("tbody", t);
  for (const row of rows) {
    const tr = make("tr", body);
    row.forEach((cell, i) => {
      const td = make("td", tr, null, numeric[i] ? "num" : "text");
      const c = cell !== null && typeof cell === "object" ? cell : { text: cell };
      const shown = c.text === null || c.text === undefined ? "–" : String(c.text);
      make("span", td, shown, shown.length <= 24 ? "whole" : "");
      if (c.soft) make("span", td, " " + c.soft, "interval");
    });
  }
  return t;
}

const interval = (r) => r && r[0] !== null
  ? { text: r[0].toFixed(3), soft: `[${r[1].toFixed(3)}, ${r[2].toFixed(3)}]` } : { text: "no rollouts" };

/* ---- runs ---------------------------------------------------------------------------------------- */

const base = (path, parts = 1) => path.replace(/\/+$/, "").split("/").slice(-parts).join("/") || path;
/* as many parts of a path as tell the runs apart */
const parts = [1, 2, 3].find((n) => new Set(data.runs.map((r) => base(r.dir, n))).size === data.runs.length) || 99;
const runs = data.runs.map((r, i) => {
  const c = r.run.config;
  return {
    ...r, config: c, colour: colours[i % colours.length], name: base(r.dir, parts),
    dash: i < colours.length ? [] : [6, 3], last: r.evals[r.evals.length - 1],
  };
});
const many = runs.length > 1;
const state = (run, name) => run.last && run.last.states.find((s) => s.name === name);

function keys(parent, labels) {
  const k = make("div", parent, null, "keys");
  for (const [text, colour] of labels) make("span", k, text, "key").style.setProperty("--key", colour);
}
const runKeys = (parent) => many && keys(parent, runs.map((r) => [`${r.name} (${r.config.arm}, seed ${r.config.seed})`, r.colour]));

/* ---- charts -------------------------------------------------------------------------------------- */

Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
Chart.defaults.font.family = "system-ui, sans-serif";
Chart.defaults.plugins.legend.display = false;
Chart.defaults.plugins.tooltip.animation = false;

/* Draws dataset.intervals[i] = [low, high] over the bars. */
Chart.register({
  id: "whiskers",
  afterDatasetsDraw(chart) {
    const { ctx, scales } = chart;
    chart.data.datasets.forEach((d, k) => {
      if (!d.intervals || !chart.isDatasetVisible(k)) return;
      ctx.save();
      ctx.strokeStyle = css("--ink");
      ctx.lineWidth = 1.5;
      chart.getDatasetMeta(k).data.forEach((bar, i) => {
        if (!d.intervals[i] || d.intervals[i][0] === null) return;
        const [low, high] = d.intervals[i].map((v) => scales.y.getPixelForValue(v));
        const cap = Math.min(5, bar.width / 4);
        ctx.beginPath();
        ctx.moveTo(bar.x, low);
        ctx.lineTo(bar.x, high);
        for (const y of [low, high]) {
          ctx.moveTo(bar.x - cap, y);
          ctx.lineTo(bar.x + cap, y);
        }
        ctx.stroke();
      });
      ctx.restore();
    });
  },
});

const charts = [];
function chart(parent, title, about, config, tall) {
  const card = make("div", parent, null, "card");
  make("h3", card, title);
  if (about) make("p", card, about, "soft");
  const canvas = make("canvas", make("div", card, null, tall ? "chart tall" : "chart"));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", title);
  charts.push(new Chart(canvas, config));
}

function axis(title, extra) {
  return {
    title: { display: Boolean(title), text: title }, grid: { color: css("--line") }, ticks: { maxRotation: 0 }, ...extra,
  };
}

function bars(parent, title, about, labels, datasets) {
  chart(parent, title, about, {
    type: "bar",
    data: { labels, datasets: datasets.map((d) => ({ borderWidth: 0, maxBarThickness: 46, ...d })) },
    options: {
      scales: { x: axis("", { grid: { display: false } }), y: axis("", { min: 0, max: 1 }) },
      plugins: {
        tooltip: {
          callbacks: {
            label: (t) => {
              const w = t.dataset.intervals[t.dataIndex];
              return `${t.dataset.label}: ${number(t.raw)}` + (w && w[0] !== null ? ` [${number(w[0])}, ${number(w[1])}]` : "");
            },
          },
        },
      },
    },
  });
}
const rateBars = (label, colour, list) => ({
  label, backgroundColor: colour, data: list.map((r) => r && r[0]), intervals: list.map((r) => r && [r[1], r[2]]),
});

function lines(parent, title, about, datasets, range) {
  const short = datasets.every((d) => d.data.length < 40);
  chart(parent, title, about, {
    type: "line",
    data: {
      datasets: datasets.map((d) => ({
        borderWidth: 1.6, pointRadius: short ? 2.5 : 0, pointHitRadius: 8, spanGaps: false, backgroundColor: d.borderColor, ...d,
      })),
    },
    options: {
      parsing: false,
      interaction: { mode: "nearest", axis: "x", intersect: false },
      scales: {
        x: axis("step", { type: "linear", ticks: { precision: 0, maxRotation: 0 } }),
        y: axis("", range ? { min: range[0], max: range[1] } : {}),
      },
    },
  });
}

/* ---- sections ------------------------------------------------------------------------------------ */

function heading() {
  make("h1", page, many ? `vkmoe report: ${runs.length} runs` : `vkmoe report: ${runs[0].name}`);
  for (const r of runs.length <= 6 ? runs : []) {
    const on = state(r, "all_on"), off = state(r, "hack_off");
    const p = make("p", page, null, "lead");
    if (many) make("strong", p, r.name + ": ");
    if (!on || !off || on.hack[0] === null || off.hack[0] === null) {
      p.append("This run has no evaluation with the hack expert on and off, so it says nothing about the ablation.");
      continue;
    }
    const random = state(r, "random_off");
    const control = random && random.hack[0] !== null
      ? `; with as many random rows removed instead, hacking is ${random.hack[0].toFixed(3)}` : "";
    const change = (k) => `${on[k][0].toFixed(3)} to ${off[k][0].toFixed(3)}`;
    p.append(`Ablating the hack expert took hacking on held-out problems from ${change("hack")} and solving from ` +
      `${change("solve")}${control} (step ${r.last.step}, ${on.hack[4]} rollouts a state).`);
    if (on.hack[1] > off.hack[2]) p.append(" It fell: the hack intervals do not overlap.");
    else if (on.hack[2] < off.hack[1]) p.append(" It rose: the hack intervals do not overlap.");
    else if (on.hack[0] === 0) p.append(" It did not hack before either: this is no evidence for or against the method.");
    else p.append(" The hack intervals overlap: the difference may be chance.");
  }
  for (const r of runs) for (const n of r.notes) make("p", page, `${r.name}: ${n}`, "note");
}

function whatWasRun() {
  const s = section("What was run");
  table(s, ["run", "arm", "#seed", "#steps", "model", "data", "device", "driver", "version", "weights hash"],
    runs.map((r) => [
      r.name, r.config.arm, r.config.seed, { text: r.steps.n, soft: `of ${r.config.max_steps}` }, r.config.model, r.config.data,
      { text: r.run.device, soft: `(${r.run.backend})` }, r.run.driver, { text: r.run.version, soft: `(${r.run.commit})` }, r.steps.hash,
    ]));
  const names = [...new Set(runs.flatMap((r) => Object.keys(r.config)))];
  const show = (v) => v === null ? "null" : typeof v === "object" ? JSON.stringify(v) : v === "" ? "(empty)" : String(v);
  const differs = (k) => new Set(runs.map((r) => show(r.config[k]))).size > 1;
  const rows = (list) => list.map((k) => [k, ...runs.map((r) => show(r.config[k]))]);
  if (many) {
    make("h3", s, "Keys in which the runs differ");
    const list = names.filter((k) => differs(k) && k !== "output_dir");
    if (list.length) table(s, ["key", ...runs.map((r) => r.name)], rows(list));
    else missing(s, "None: these runs have one config.");
  }
  const d = make("details", s);
  make("summary", d, `All ${names.length} keys of the config`);
  table(d, ["key", ...runs.map((r) => r.name)], rows(names));
}

function causal() {
  const s = section("The causal table",
    "Held-out problems, the same prompts and draws in every state. Wilson intervals at 95%. If the hack expert carries " +
    "the hacking, “hack” falls from all_on to hack_off, does not fall under the two controls, and “solve” stays.");
  const done = runs.filter((r) => r.last && r.last.states.some((x) => x.hack[0] !== null));
  if (!done.length) {
    missing(s, "No run has an evaluation. A run evaluates at its end (eval_problems > 0) and every eval_every steps.");
    return;
  }
  const names = [...new Set(done.flatMap((r) => r.last.states.map((x) => x.name)))];
  const rows = done.flatMap((r) => r.last.states.map((x) => [
    ...(many ? [r.name] : []), { text: x.name, soft: (states[x.name] || "") + (x.name === r.last.deployed ? " (as deployed)" : "") }, x.hack[4], ...rates.map(([k]) => interval(x[k])),
  ]));
  table(s, [...(many ? ["run"] : []), "state", "#rollouts", ...rates.map(([k]) => "#" + k)], rows);
  for (const r of runs) if (!done.includes(r)) missing(s, `${r.name} has no evaluation.`);
  runKeys(s);
  const g = make("div", s, null, "grid");
  const labels = names.map((n) => n.split("_"));
  for (const [k, title] of rates)
    bars(g, title, "", labels, done.map((r) => rateBars(r.name, r.colour, names.map((n) => (state(r, n) || {})[k]))));
  if (done.some((r) => r.evals.length > 1)) {
    const over = make("div", s, null, "grid");
    for (const [k, title] of rates.slice(0, 2))
      lines(over, `${title} over the run`, "solid: all_on, dashed: hack_off", done.flatMap((r) => ["all_on", "hack_off"].map((n, i) => ({
        label: `${r.name} ${n}`, borderColor: r.colour, borderDash: i ? [5, 4] : [],
        data: r.evals.map((e) => ({ x: e.step, y: ((e.states.find((x) => x.name === n) || {})[k] || [null])[0] })),
      }))), [0, 1]);
  }
}

function comparison() {
  if (!many) return;
  const s = section("Arms and seeds", "Means over the runs of an arm, with the lowest and highest run. Rates of the last evaluation.");
  const arms = [...new Set(runs.map((r) => r.config.arm))];
  const spread = (list) => {
    const v = list.filter((x) => x !== null && x !== undefined);
    if (!v.length) return { text: "no evaluation" };
    const mean = v.reduce((a, b) => a + b, 0) / v.length;
    return { text: mean.toFixed(3), soft: v.length > 1 ? `[${Math.min(...v).toFixed(3)}, ${Math.max(...v).toFixed(3)}]` : "" };
  };
  const rate = (r, n, k) => (state(r, n) || { [k]: [null] })[k][0];
  table(s, ["arm", "#runs", "seeds", "#hack on", "#hack off", "#solve on", "#solve off"], arms.map((arm) => {
    const list = runs.filter((r) => r.config.arm === arm);
    return [arm, list.length, list.map((r) => r.config.seed).join(", "),
      ...[["all_on", "hack"], ["hack_off", "hack"], ["all_on", "solve"], ["hack_off", "solve"]]
        .map(([n, k]) => spread(list.map((r) => rate(r, n, k))))];
  }));
}

function learning() {
  const s = section("Learning curves", "Per training step. A gap is a step at which the value is undefined.");
  const done = runs.filter((r) => r.steps.n);
  for (const r of runs) {
    if (!r.steps.n) missing(s, `${r.name} has done no step.`);
    else if (r.steps.n === 1) missing(s, `${r.name} has done one step: a curve is one point.`);
    if (r.steps.stride > 1) make("p", s, `${r.name}: every ${r.steps.stride}th step is drawn.`, "soft");
  }
  if (!done.length) return;
  runKeys(s);
  const g = make("div", s, null, "grid"), absent = [];
  for (const [key, title, about, range, second] of curves) {
    const sets = done.flatMap((r) => [key, second].filter((k) => k && r.steps.series[k]).map((k) => ({
      label: `${r.name} ${k}`, borderColor: r.colour, borderDash: k === second ? [5, 4] : r.dash,
      data: r.steps.series.step.map((x, i) => ({ x, y: r.steps.series[k][i] })),
    })));
    if (sets.some((d) => d.data.some((p) => p.y !== null))) lines(g, title, about, sets, range);
    else if (sets.length) absent.push(key);
  }
  if (absent.length) missing(s, `Undefined at every step, so not drawn: ${absent.join(", ")}.`);
}

function router() {
  const s = section("Router weights of live rollouts",
    "w near 1 sends a rollout's gradient to the hack expert. Second half of the run; labels are the grader's and never reach training.");
  const done = runs.filter((r) => r.rollouts.w.hack);
  if (!done.length) {
    missing(s, "No router weights were logged: the arm has no router, no rollout was live, or the run keeps no rollouts.");
    return;
  }
  keys(s, [["hacking", colours[1]], ["not hacking", colours[0]]]);
  const g = make("div", s, null, "grid");
  for (const r of done) {
    const sum = (v) => v.reduce((a, b) => a + b, 0), n = r.rollouts.w.hack.length;
    const set = (label, values, colour) => ({ label, data: values, backgroundColor: colour, categoryPercentage: 1, barPercentage: 0.9 });
    chart(g, r.name, `${sum(r.rollouts.w.hack)} hacking, ${sum(r.rollouts.w.other)} not, after step ${r.rollouts.from_step}`, {
      type: "bar",
      data: {
        labels: r.rollouts.w.hack.map((_, i) => (i / n).toFixed(2)),
        datasets: [set("hacking", r.rollouts.w.hack, colours[1]), set("not hacking", r.rollouts.w.other, colours[0])],
      },
      options: {
        scales: { x: axis("w", { stacked: true, grid: { display: false } }), y: axis("rollouts", { stacked: true, ticks: { precision: 0 } }) },
        plugins: { tooltip: { callbacks: { title: (t) => `w from ${t[0].label} to ${(Number(t[0].label) + 1 / n).toFixed(2)}` } } },
      },
    });
  }
}

function modes() {
  const s = section("By mode", "Sampled training rollouts (no teachers) of the second half of each run. Wilson intervals at 95%.");
  const done = runs.filter((r) => r.rollouts.modes.length);
  if (!done.length) {
    missing(s, "No sampled rollouts were logged in the second half.");
    return;
  }
  const names = [...new Set(done.flatMap((r) => r.rollouts.modes.map((m) => m.name)))].sort();
  runKeys(s);
  const g = make("div", s, null, "grid");
  for (const [k, title] of rates)
    bars(g, title, "", names, done.map((r) => rateBars(r.name, r.colour, names.map((n) => (r.rollouts.modes.find((m) => m.name === n) || {})[k]))));
  table(s, [...(many ? ["run"] : []), "mode", "#rollouts", ...rates.map(([k]) => "#" + k)],
    done.flatMap((r) => r.rollouts.modes.map((m) => [...(many ? [r.name] : []), m.name, m.hack[4], ...rates.map(([k]) => interval(m[k]))])));
}

function samples() {
  const s = section("Sample rollouts", "The latest of each kind. Texts are the model's, shown as they are.");
  const about = (x) => {
    const f = x.fields, who = f.teacher ? "a teacher's" : "the model's own";
    if (x.kind === "hack") return `A hack (${who})`;
    return f.gt_correct ? `An honest solution (${who})` : `No hack and no solution (${who}): the run has no honest solution`;
  };
  for (const r of runs) {
    for (const x of r.rollouts.samples) {
      const card = make("div", s, null, "card sample"), f = x.fields;
      make("h3", card, (many ? `${r.name}: ` : "") + about(x));
      make("p", card, `step ${f.step}, problem ${f.problem_id}, mode ${f.mode}; reward ${number(f.reward)}, advantage ` +
        `${number(f.advantage)}, w ${number(f.w)}`, "soft");
      const fields = make("div", card, null, "fields");
      for (const [k, v] of Object.entries(f))
        if (typeof v === "boolean") make("span", fields, `${k}: ${v ? "yes" : "no"}`, v ? "field yes" : "field no");
      make("div", card, "The prompt's end", "soft");
      make("pre", card, x.prompt_tail === null ? "(not logged by this run's version)" : x.prompt_tail);
      make("div", card, "Completion", "soft");
      make("pre", card, x.completion === null || x.completion === "" ? "(empty)" : x.completion);
      for (const k of ["prompt_tail", "completion"])
        if (x[k + "_cut"]) make("div", card, `Only the first ${x[k + "_cut"]} bytes of ${k} are shown.`, "soft");
    }
    if (!r.rollouts.n) missing(s, `${r.name} keeps no rollouts.`);
    else if (!r.rollouts.samples.some((x) => x.kind === "hack")) missing(s, `No rollout of ${r.name} hacked.`);
  }
}

function paint() {
  Chart.defaults.color = css("--soft");
  page.replaceChildren();
  charts.splice(0).forEach((c) => c.destroy());
  for (const part of [heading, whatWasRun, causal, comparison, learning, router, modes, samples]) part();
  make("p", page, `Written by vkmoe ${data.version} (${data.commit}). Charts: Chart.js ${Chart.version}, MIT licence.`, "soft");
}
paint();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
