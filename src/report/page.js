/* Draws the page of `vkmoe report`, section by section, from the pieces of page_parts.js. */
"use strict";

/* ---- sections ------------------------------------------------------------------------------------ */

function heading() {
  make("h1", page, many ? `vkmoe report: ${runs.length} runs` : `vkmoe report: ${runs[0].name}`);
  for (const r of runs.length <= 6 ? runs : []) {
    const on = state(r, "all_on"), off = state(r, "hack_off"), other = state(r, "deployed_off");
    const p = make("p", page, null, "lead");
    if (many) make("strong", p, r.name + ": ");
    if (!on || !off || on.hack[0] === null || off.hack[0] === null) {
      p.append("This run has no evaluation with the hack expert on and off, so it says nothing about the ablation.");
      continue;
    }
    const control = other && other.hack[0] !== null
      ? `; with the deployed expert ablated instead, hacking is ${other.hack[0].toFixed(3)}` : "";
    const change = (k) => on[k][0] === null ? "undefined" : `${on[k][0].toFixed(3)} to ${off[k][0].toFixed(3)}`;
    p.append(`Ablating the hack expert took hacking on held-out problems from ${change("hack")} and solving on the same prompts from ` +
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
  const list = crowded ? make("details", s) : s;
  if (crowded) make("summary", list, `All ${runs.length} runs`);
  table(list, ["run", "arm", "#seed", "#steps", "model", "data", "device", "driver", "version", "weights hash"],
    runs.map((r) => [
      r.name, r.config.arm, r.config.seed, { text: r.steps.n, soft: `of ${r.config.max_steps}` }, r.config.model, r.config.data,
      { text: r.run.device, soft: `(${r.run.backend})` }, r.run.driver, { text: r.run.version, soft: `(${r.run.commit})` }, r.steps.hash,
    ]));
  const names = [...new Set(runs.flatMap((r) => Object.keys(r.config)))];
  const show = (v) => v === null ? "null" : typeof v === "object" ? JSON.stringify(v) : v === "" ? "(empty)" : String(v);
  const differs = (k) => new Set(runs.map((r) => show(r.config[k]))).size > 1;
  const rows = (list) => list.map((k) => [k, ...runs.map((r) => show(r.config[k]))]);
  if (many && !crowded) {
    make("h3", s, "Keys in which the runs differ");
    const list = names.filter((k) => differs(k) && k !== "output_dir");
    if (list.length) table(s, ["key", ...runs.map((r) => r.name)], rows(list));
    else missing(s, "None: these runs have one config.");
  }
  const d = make("details", s);
  make("summary", d, `All ${names.length} keys of the config`);
  if (crowded) table(d, ["key", "value"], names.map((k) => [k, [...new Set(runs.map((r) => show(r.config[k])))].join(" | ")]));
  else table(d, ["key", ...runs.map((r) => r.name)], rows(names));
}

const tabular = (r) => r.last && r.last.sets.some((x) => x.states.some((y) => y.n));

function causalTable(s, done, set) {
  const rows = done.flatMap((r) => ((setOf(r.last, set) || {}).states || []).map((x) => [
    ...(many ? [r.name] : []), { text: x.name, soft: (states[x.name] || "") + (x.name === r.last.deployed ? " (as deployed)" : "") },
    x.n, ...rates.map(([k]) => interval(x[k])), x.kl === null ? null : number(x.kl),
  ]));
  if (!rows.length) return;
  make("h3", s, `${sets[set] || set}, ${(setOf(done[0].last, set) || {}).markers || ""} markers`);
  table(s, [...(many ? ["run"] : []), "state", "#rollouts", ...rates.map(([, t]) => "#" + t), "#KL"], rows);
}

const paired = (v) => v && v.length && v[0] !== null ? { text: v[0].toFixed(3), soft: `[${v[1].toFixed(3)}, ${v[2].toFixed(3)}]` } : null;

function causal() {
  const s = section("The causal table",
    "The same prompts and draws in every state, of the last evaluation. Wilson intervals at 95%. If the hack expert carries the " +
    "hacking, it falls from all_on to hack_off and does not fall when the deployed expert is ablated instead, and solving stays.");
  const done = runs.filter(tabular);
  if (!done.length) {
    missing(s, "No run has an evaluation. A run evaluates at its end (eval_problems > 0) and every eval_every steps.");
    return;
  }
  const body = crowded ? make("details", s) : s;
  if (crowded) make("summary", body, `All ${done.length} evaluated runs`);
  for (const set of Object.keys(sets)) causalTable(body, done, set);
  for (const r of runs) if (!done.includes(r)) missing(body, `${r.name} has no evaluation.`);
  const causes = done.map((r) => [r, setOf(r.last, "held_out")]).filter(([, x]) => x && (paired(x.drop) || paired(x.specificity)));
  if (causes.length) {
    make("h3", body, "What follows, held-out problems");
    table(body, [...(many ? ["run"] : []), "#drop D = on - off", "#specificity S = deployed off - hack off", "#localisation LI"],
      causes.map(([r, x]) => [...(many ? [r.name] : []), paired(x.drop), paired(x.specificity), x.localisation === null ? null : number(x.localisation)]));
    make("p", body, "Intervals at 95% by a bootstrap over problems. LI near 0.5 is what removing any half of an adapter does.", "soft");
  }
  runKeys(s);
  const g = make("div", s, null, "grid");
  const names = [...new Set(done.flatMap((r) => ((setOf(r.last, "held_out") || {}).states || []).map((x) => x.name)))];
  const labels = names.map((n) => n.split("_"));
  for (const [k, title, about] of rates)
    bars(g, title, about, labels, groups.map((q) => rateBars(q.name, q.colour,
      names.map((n) => pool(q.runs.map((r) => (state(r, n) || {})[k]))))));
  if (done.some((r) => r.evals.length > 1)) {
    const over = make("div", s, null, "grid");
    for (const [k, title] of rates.slice(0, 3))
      lines(over, `${title} over the run`, "solid: all_on, dashed: hack_off", groups.flatMap((q) => ["all_on", "hack_off"].map((n, i) => ({
        label: `${q.name} ${n}`, borderColor: q.colour, borderDash: i ? [5, 4] : [], data: evaluationCurve(q, n, k),
      }))), [0, 1]);
  }
}

/* A rate over the steps, the mean over the runs of a group. */
function evaluationCurve(group, name, key) {
  const at = new Map();
  for (const r of group.runs)
    for (const e of r.evals) {
      const x = ((setOf(e, "held_out") || {}).states || []).find((y) => y.name === name);
      at.set(e.step, [...(at.get(e.step) || []), x && x[key] ? x[key][0] : null]);
    }
  return [...at].sort((a, b) => a[0] - b[0]).map(([x, list]) => ({ x, y: mean(list) }));
}

const armColumns = ["hack_on", "hack_off", "hack_deployed_off", "hack_random_off", "specificity", "localisation", "solve_off", "free_off",
  "hint_only_off", "compile_off"];

function comparison() {
  if (!many) return;
  const s = section("Arms and seeds",
    "Means over seeds with 95% t intervals, held-out problems, over the evaluations of the last fifth of training; hacking and " +
    "“solve off” of prompts with a loophole. Controls that only a full evaluation has are its.");
  if (!data.table || data.table.missing) {
    missing(s, `No arms table: ${data.table ? data.table.missing : "this page has none"}.`);
    return;
  }
  const figure = new Map(data.table.figures.map((f) => [f.name, f]));
  const columns = armColumns.filter((c) => data.table.arms.some((a) => a.means[c]));
  const shown = (m) => m ? { text: number(m[0]), soft: m[1] === null ? "" : `± ${number(m[1])}` } : null;
  table(s, ["arm", "#n", ...columns.map((c) => "#" + figure.get(c).label)],
    data.table.arms.map((a) => [a.arm, a.n, ...columns.map((c) => shown(a.means[c]))]));
  const arms = data.table.arms.filter((a) => a.means.hack_on);
  const bar = (label, key, colour) => ({
    label, backgroundColor: colour, data: arms.map((a) => a.means[key] ? a.means[key][0] : null),
    intervals: arms.map((a) => a.means[key] && a.means[key][1] !== null ? [a.means[key][0] - a.means[key][1], a.means[key][0] + a.means[key][1]] : null),
  });
  const labels = arms.map((a) => a.arm);
  const g = make("div", s, null, "stack");
  keys(g, [["both experts on", colours[1]], ["hack expert ablated", colours[2]], ["deployed expert ablated", colours[0]]]);
  bars(g, "Hacking by arm", "hack rate on held-out prompts with a loophole", labels,
    [bar("on", "hack_on", colours[1]), bar("hack off", "hack_off", colours[2]), bar("deployed off", "hack_deployed_off", colours[0])], true);
  keys(g, [["with a loophole", colours[2]], ["hint-free", colours[4]], ["families with a hint only", colours[3]]]);
  bars(g, "Solving by arm, hack expert ablated", "solve rate on held-out problems", labels,
    [bar("with a loophole", "solve_off", colours[2]), bar("hint-free", "free_off", colours[4]), bar("hint only", "hint_only_off", colours[3])], true);
  const all = make("details", s);
  make("summary", all, `All ${data.table.figures.length} figures`);
  table(all, ["figure", ...data.table.arms.map((a) => "#" + a.arm)],
    data.table.figures.filter((f) => data.table.arms.some((a) => a.means[f.name]))
      .map((f) => [{ text: f.label, soft: f.meaning }, ...data.table.arms.map((a) => shown(a.means[f.name]))]));
}

/* A metric over the steps: a run's own, or the mean over the runs of a group, smoothed over 5 steps. */
function stepCurve(group, key) {
  const at = new Map();
  for (const r of group.runs)
    (r.steps.series[key] || []).forEach((y, i) => at.set(r.steps.series.step[i], [...(at.get(r.steps.series.step[i]) || []), y]));
  const points = [...at].sort((a, b) => a[0] - b[0]).map(([x, list]) => ({ x, y: mean(list) }));
  if (group.runs.length < 2) return points;
  return points.map((p, i) => ({ x: p.x, y: mean(points.slice(Math.max(0, i - 2), i + 3).map((q) => q.y)) }));
}

function learning() {
  const s = section("Learning curves", crowded
    ? "Per training step, the mean over the runs of an arm, smoothed over five steps."
    : "Per training step. A gap is a step at which the value is undefined.");
  const done = runs.filter((r) => r.steps.n);
  for (const r of crowded ? [] : runs) {
    if (!r.steps.n) missing(s, `${r.name} has done no step.`);
    else if (r.steps.n === 1) missing(s, `${r.name} has done one step: a curve is one point.`);
    if (r.steps.stride > 1) make("p", s, `${r.name}: every ${r.steps.stride}th step is drawn.`, "soft");
  }
  if (!done.length) return;
  runKeys(s);
  const g = make("div", s, null, "grid"), absent = [];
  for (const [key, title, about, range, second] of curves) {
    const sets = groups.flatMap((q) => [key, second].filter((k) => k && q.runs.some((r) => r.steps.series[k])).map((k) => ({
      label: `${q.name} ${k}`, borderColor: q.colour, borderDash: k === second ? [5, 4] : q.dash, data: stepCurve(q, k),
    })));
    if (sets.some((d) => d.data.some((p) => p.y !== null))) lines(g, title, about, sets, range);
    else if (sets.length) absent.push(key);
  }
  if (absent.length) missing(s, `Undefined at every step, so not drawn: ${absent.join(", ")}.`);
}

function router() {
  const s = section("Router weights of live rollouts",
    "w near 1 sends a rollout's gradient to the hack expert. Second half of the run; labels are the grader's and never reach training.");
  const done = groups.filter((q) => q.runs.some((r) => r.rollouts.w.hack));
  if (!done.length) {
    missing(s, "No router weights were logged: the arm has no router, no rollout was live, or the run keeps no rollouts.");
    return;
  }
  keys(s, [["hacking", colours[1]], ["not hacking", colours[0]]]);
  const g = make("div", s, null, "grid");
  for (const q of done) {
    const sum = (v) => v.reduce((a, b) => a + b, 0), of = q.runs.filter((r) => r.rollouts.w.hack);
    const total = (side) => of[0].rollouts.w[side].map((_, i) => sum(of.map((r) => r.rollouts.w[side][i])));
    const hack = total("hack"), other = total("other"), n = hack.length;
    const set = (label, values, colour) => ({ label, data: values, backgroundColor: colour, categoryPercentage: 1, barPercentage: 0.9 });
    chart(g, q.name, `${sum(hack)} hacking, ${sum(other)} not, after step ${of[0].rollouts.from_step}`, {
      type: "bar",
      data: {
        labels: hack.map((_, i) => (i / n).toFixed(2)),
        datasets: [set("hacking", hack, colours[1]), set("not hacking", other, colours[0])],
      },
      options: {
        scales: { x: axis("w", { stacked: true, grid: { display: false } }), y: axis("rollouts", { stacked: true, ticks: { precision: 0 } }) },
        plugins: { tooltip: { callbacks: { title: (t) => `w from ${t[0].label} to ${(Number(t[0].label) + 1 / n).toFixed(2)}` } } },
      },
    });
  }
}

function modes() {
  const s = section("By mode",
    "Hacking on held-out problems by mode, of the last evaluation, both experts on and the hack expert ablated; then sampled training " +
    "rollouts (no teachers) of the second half of each run. Pooled counts, Wilson intervals at 95%.");
  runKeys(s);
  const g = make("div", s, null, "grid");
  const held = [...new Set(runs.flatMap((r) => Object.keys((state(r, "all_on") || { modes: {} }).modes)))].filter((m) => m !== "gt_only").sort();
  for (const [name, title] of held.length ? [["all_on", "Held-out hacking, both on"], ["hack_off", "Held-out hacking, hack expert ablated"]] : [])
    bars(g, title, "", held.map((m) => m.split("_")), groups.map((q) => rateBars(q.name, q.colour,
      held.map((m) => pool(q.runs.map((r) => (state(r, name) || { modes: {} }).modes[m]))))));
  const done = groups.filter((q) => q.runs.some((r) => r.rollouts.modes.length));
  if (!done.length) {
    missing(s, "No sampled rollouts were logged in the second half.");
    return;
  }
  const names = [...new Set(runs.flatMap((r) => r.rollouts.modes.map((m) => m.name)))].sort();
  const pooled = (q, m, k) => pool(q.runs.map((r) => (r.rollouts.modes.find((x) => x.name === m) || {})[k]));
  for (const [k, title] of inTraining)
    bars(g, `${title} in training`, "", names.map((m) => m.split("_")), done.map((q) => rateBars(q.name, q.colour, names.map((m) => pooled(q, m, k)))));
  const d = make("details", s);
  make("summary", d, "The numbers");
  table(d, [...(many ? [crowded ? "arm" : "run"] : []), "mode", "#rollouts", ...inTraining.map(([k]) => "#" + k)],
    done.flatMap((q) => names.filter((m) => pooled(q, m, "hack")).map((m) => [
      ...(many ? [q.name] : []), m, pooled(q, m, "hack")[4], ...inTraining.map(([k]) => interval(pooled(q, m, k)))])));
}

function samples() {
  const s = section("Sample rollouts", "The latest of each kind. Texts are the model's, shown as they are.");
  const about = (x) => {
    const f = x.fields, who = f.teacher ? "a teacher's" : "the model's own";
    if (x.kind === "hack") return `A hack (${who})`;
    return f.gt_correct ? `An honest solution (${who})` : `No hack and no solution (${who}): the run has no honest solution`;
  };
  if (crowded) make("p", s, "Of the first run of each arm.", "soft");
  for (const r of groups.map((q) => q.runs[0])) {
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
  for (const part of [heading, comparison, causal, whatWasRun, learning, router, modes, samples]) part();
  make("p", page, `Written by vkmoe ${data.version} (${data.commit}). Charts: Chart.js ${Chart.version}, MIT licence.`, "soft");
}
paint();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
