/* What the page of `vkmoe report` is made of: the JSON in #data, runs and groups, tables, charts. Texts of the runs become text
 * nodes only. The sections: page.js. */
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
  hack_25: "hack expert at 1/4",
  hack_50: "hack expert at 1/2",
  hack_75: "hack expert at 3/4",
  scale_25: "control: whole adapter at 1/4",
  scale_50: "control: whole adapter at 1/2",
  scale_75: "control: whole adapter at 3/4",
};
const sets = { held_out: "Held-out problems", train: "Training problems" };
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
const rates = [
  ["hack", "Hack rate", "of prompts that name a loophole"],
  ["solve", "Solve rate", "of prompts that name a loophole"],
  ["free", "Solve rate, hint-free", "of prompts without a hint"],
  ["compile", "Compile rate", "of all answers"],
];
const inTraining = rates.filter(([k]) => k !== "free");

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
  ? { text: r[0].toFixed(3), soft: `[${r[1].toFixed(3)}, ${r[2].toFixed(3)}]` } : { text: "none such" };

/* ---- runs ---------------------------------------------------------------------------------------- */

const base = (path, parts = 1) => path.replace(/\/+$/, "").split("/").slice(-parts).join("/") || path;
/* as many parts of a path as tell the runs apart */
const parts = [1, 2, 3].find((n) => new Set(data.runs.map((r) => base(r.dir, n))).size === data.runs.length) || 99;
const runs = data.runs.map((r, i) => {
  const c = r.run.config, name = base(r.dir, parts);
  return {
    ...r, config: c, row: c.label || c.arm, colour: colours[i % colours.length], name,
    dash: i < colours.length ? [] : [6, 3], last: r.full[0] || r.evals[r.evals.length - 1],
  };
});
const many = runs.length > 1;
/* What charts show one of: a run, or where there are too many of them, the runs of one row. */
const crowded = runs.length > colours.length;
const groups = crowded
  ? [...new Set(runs.map((r) => r.row))].map((row, i) => ({
    name: row, runs: runs.filter((r) => r.row === row), colour: colours[i % colours.length],
    dash: i < colours.length ? [] : [6, 3],
  }))
  : runs.map((r) => ({ name: r.name, runs: [r], colour: r.colour, dash: r.dash }));
const setOf = (evaluation, name) => evaluation && evaluation.sets.find((x) => x.name === name);
const state = (run, name, set = "held_out") => {
  const s = setOf(run.last, set);
  return s && s.states.find((x) => x.name === name);
};
const defined = (list) => list.filter((x) => x !== null && x !== undefined);
const mean = (list) => defined(list).length ? defined(list).reduce((a, b) => a + b, 0) / defined(list).length : null;

/* Wilson's interval of pooled counts: [rate, low, high, k, n]. */
function pool(list) {
  const k = list.reduce((a, r) => a + (r ? r[3] : 0), 0), n = list.reduce((a, r) => a + (r ? r[4] : 0), 0), z = 1.959963984540054;
  if (!n) return null;
  const p = k / n, d = 1 + z * z / n, c = (p + z * z / (2 * n)) / d;
  const h = (z / d) * Math.sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return [p, Math.max(0, c - h), Math.min(1, c + h), k, n];
}

function keys(parent, labels) {
  const k = make("div", parent, null, "keys");
  for (const [text, colour] of labels) make("span", k, text, "key").style.setProperty("--key", colour);
}
const runKeys = (parent) => many && keys(parent, groups.map((g) => [
  crowded ? `${g.name} (${g.runs.length} runs)` : `${g.name} (${g.runs[0].row}, seed ${g.runs[0].config.seed})`, g.colour]));

/* ---- charts -------------------------------------------------------------------------------------- */

Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
Chart.defaults.font.family = "system-ui, sans-serif";
Chart.defaults.plugins.legend.display = false;
Chart.defaults.plugins.tooltip.animation = false;

/* Draws dataset.intervals[i] = [low, high] over the bars; an end off the scale has no cap. */
Chart.register({
  id: "whiskers",
  afterDatasetsDraw(chart) {
    const { ctx, scales, chartArea } = chart;
    chart.data.datasets.forEach((d, k) => {
      if (!d.intervals || !chart.isDatasetVisible(k)) return;
      ctx.save();
      ctx.strokeStyle = css("--ink");
      ctx.lineWidth = 1.5;
      ctx.beginPath();
      ctx.rect(chartArea.left, chartArea.top - 2, chartArea.width, chartArea.height + 4);
      ctx.clip();
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

function bars(parent, title, about, labels, datasets, tall) {
  chart(parent, title, about, {
    type: "bar",
    data: { labels, datasets: datasets.map((d) => ({ borderWidth: 0, maxBarThickness: 46, ...d })) },
    options: {
      scales: {
        x: axis("", { grid: { display: false }, ticks: { autoSkip: false, maxRotation: 40 } }),
        y: axis("", { min: 0, max: 1 }),
      },
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
  }, tall);
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
