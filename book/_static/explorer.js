/* The explorer: reads the JSON in the page, draws with plain SVG, loads nothing. */
(() => {
  "use strict";
  const root = document.getElementById("explorer-app");
  const source = document.getElementById("explorer-data");
  if (!root || !source) return;
  const data = JSON.parse(source.textContent);
  const FORMS = { mllmeraser: "corrected form", mllmeraser_published: "published form", constant: "constant steering" };
  const NAMES = { llava: "LLaVA-1.5", qwen: "Qwen2.5-VL" };
  const COLOURS = { test: "#b07c00", forget: "#d55e00", retain: "#0072b2", celebrity: "#009e73", stranger: "#7a5195",
    general: "#7d7d7d", same_photo: "#4f8f6f", benign: "#3f8fc4", forbidden: "#a8441c" };
  const SHOWN = ["forget", "test", "retain", "celebrity", "stranger", "general", "same_photo", "benign", "forbidden"];
  const state = { model: Object.keys(data.models)[0], threshold: 0, subset: "test", page: 0, push: null, block: 0,
    form: "mllmeraser", dose: null, dosed: "test", turn: 0 };
  const PER_PAGE = 4;

  const make = (tag, attributes = {}, ...children) => {
    const svg = ["svg", "line", "path", "circle", "rect", "text", "g"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  // A redraw changes nodes in place: a slider that is replaced while it is dragged lets go of the mouse.
  const renew = (old, fresh) => {
    if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return undefined;
    }
    for (const name of old.getAttributeNames()) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const name of fresh.getAttributeNames())
      if (old.getAttribute(name) !== fresh.getAttribute(name)) old.setAttribute(name, fresh.getAttribute(name));
    for (const name of ["onclick", "onchange", "oninput"]) old[name] = fresh[name];
    const before = [...old.childNodes], after = [...fresh.childNodes];
    after.forEach((child, i) => (i < before.length ? renew(before[i], child) : old.append(child)));
    before.slice(after.length).forEach((child) => child.remove());
    // what a hand has moved no longer listens to its attribute
    if (old.nodeName === "INPUT" && Number(old.value) !== Number(fresh.value)) old.value = fresh.value;
    if (old.nodeName === "SELECT") old.value = fresh.value;
    return undefined;
  };
  const model = () => data.models[state.model];
  const opened = (values, threshold) => values.filter((v) => v > threshold).length / Math.max(1, values.length);
  const percent = (share) => share.toFixed(3).replace(/^0\./, ".");
  const levels = () => model().thresholds.filter((t) => t.threshold !== null); // too few prompts calibrate nothing
  const strict = () => levels().reduce((a, b) => (a.alpha < b.alpha ? a : b), { alpha: 1, threshold: range()[1] }).threshold;
  const label = (name) => name.replace("_", " ");

  // --- values and ROC -------------------------------------------------------------------------------------------
  const range = () => {
    const all = Object.values(model().groups).flat();
    return [Math.min(...all), Math.max(...all)];
  };
  const strips = () => {
    const groups = SHOWN.filter((name) => model().groups[name]);
    const [low, high] = range();
    const width = 460, left = 84, row = 20, height = groups.length * row + 26;
    const x = (v) => left + ((v - low) / (high - low)) * (width - left - 10);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "gate values by subset" });
    groups.forEach((name, i) => {
      const y = i * row + row / 2 + 2;
      svg.append(make("text", { x: left - 8, y: y + 4, "text-anchor": "end", class: "ex-small" }, label(name)));
      for (const v of model().groups[name])
        svg.append(make("line", { x1: x(v), x2: x(v), y1: y - 6, y2: y + 6, stroke: COLOURS[name],
          "stroke-opacity": 0.35, "stroke-width": 1.4 }));
    });
    const at = x(state.threshold), bottom = groups.length * row + 4;
    svg.append(make("line", { x1: at, x2: at, y1: 0, y2: bottom, class: "ex-threshold" }));
    for (let v = Math.ceil(low); v <= high; v += Math.max(1, Math.round((high - low) / 8)))
      svg.append(make("text", { x: x(v), y: bottom + 14, "text-anchor": "middle", class: "ex-small" }, String(v)));
    return svg;
  };
  const roc = () => {
    const forgotten = model().groups.test, kept = [...model().groups.retain, ...model().groups.celebrity];
    const size = 220, pad = 34;
    const x = (v) => pad + v * (size - pad - 8), y = (v) => size - pad - v * (size - pad - 8);
    const cuts = [Infinity, ...[...forgotten, ...kept].sort((a, b) => b - a), -Infinity];
    const path = cuts.map((c, i) => `${i ? "L" : "M"}${x(opened(kept, c)).toFixed(1)},${y(opened(forgotten, c)).toFixed(1)}`);
    const svg = make("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": "ROC curve of the gate" });
    svg.append(
      make("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "ex-grid" }),
      make("path", { d: path.join(""), fill: "none", stroke: "#d55e00", "stroke-width": 2 }),
      make("circle", { cx: x(opened(kept, state.threshold)), cy: y(opened(forgotten, state.threshold)), r: 5,
        fill: "#d55e00", stroke: "currentColor" }),
      make("text", { x: x(0.5), y: size - 6, "text-anchor": "middle", class: "ex-small" }, "kept prompts opened"),
      make("text", { x: 12, y: y(0.5), "text-anchor": "middle", transform: `rotate(-90 12 ${y(0.5)})`, class: "ex-small" },
        "forgotten prompts opened"));
    for (const v of [0, 1]) {
      svg.append(make("text", { x: x(v), y: size - pad + 14, "text-anchor": "middle", class: "ex-small" }, String(v)));
      svg.append(make("text", { x: pad - 6, y: y(v) + 4, "text-anchor": "end", class: "ex-small" }, String(v)));
    }
    return svg;
  };
  const shares = () => {
    const body = make("tbody");
    for (const name of SHOWN.filter((n) => model().groups[n])) {
      const share = opened(model().groups[name], state.threshold);
      const bar = make("span", { class: "ex-bar", style: `width:${(share * 100).toFixed(1)}%;background:${COLOURS[name]}` });
      body.append(make("tr", {}, make("th", { scope: "row" }, label(name)), make("td", {}, percent(share)),
        make("td", { class: "ex-bar-cell" }, bar)));
    }
    return make("table", { class: "ex-shares" }, make("caption", {}, "Share of prompts opened"), body);
  };

  // A card: the portrait, a line below it, and what was asked and said.
  const card = (id, below, said) => {
    const place = data.questions[id][4];
    const list = make("dl", {}, ...said.flatMap(([name, text, open]) => [make("dt", {}, name),
      make("dd", open ? { class: "ex-open" } : {}, text ?? "")]));
    const picture = place === null ? make("div", { class: "ex-nopicture" }, "by name")
      : make("img", { src: `data:image/jpeg;base64,${data.images[place]}`, alt: "portrait that the question shows" });
    return make("div", { class: "ex-card" }, make("div", {}, picture, make("div", { class: "ex-small" }, below)), list);
  };
  const picturesFirst = (ids) => {
    const pictured = (id) => data.questions[id][4] !== null;
    return ids.sort((a, b) => Number(pictured(b)) - Number(pictured(a)));
  };
  const leafed = (ids, at) => {
    const pages = Math.max(1, Math.ceil(ids.length / PER_PAGE)), page = ((at % pages) + pages) % pages;
    return [ids.slice(page * PER_PAGE, (page + 1) * PER_PAGE), `${page + 1} of ${pages}`];
  };
  const turning = (where, turn) => [make("button", { type: "button", onclick: () => { turn(-1); draw(); } }, "‹ back"),
    make("button", { type: "button", onclick: () => { turn(1); draw(); } }, "more ›"), make("span", { class: "ex-small" }, where)];
  const bars = (rows, colour, width = (value) => value) => make("table", { class: "ex-shares" }, make("tbody", {},
    ...rows.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, percent(value)),
      make("td", { class: "ex-bar-cell" },
        make("span", { class: "ex-bar", style: `width:${width(value) * 100}%;background:${colour}` }))))));
  const pick = (label_, names, current, set) => make("select", { "aria-label": label_, onchange: (e) => { set(e.target.value); draw(); } },
    ...names.map(([value, text]) => make("option", value === current ? { value, selected: "" } : { value }, text)));

  // --- answers --------------------------------------------------------------------------------------------------
  const answers = () => {
    const ids = picturesFirst(Object.keys(model().answers).filter((id) => data.questions[id][0] === state.subset));
    const [shown, where] = leafed(ids, state.page);
    const box = make("div", { class: "ex-cards" });
    for (const id of shown) {
      const [, , text, right] = data.questions[id];
      const [value, before, steered, retrained] = model().answers[id];
      const open = value > state.threshold;
      let after = before;
      if (open) after = value > strict() ? steered : "(opens only at this threshold; its answer was not generated)";
      box.append(card(id, `gate ${value.toFixed(2)} ${open ? "open" : "closed"}`, [["asked", text], ["right", right],
        ["before", before], ["now", after, open], ["never learned", retrained ?? "(no reference)"]]));
    }
    const choose = pick("subset", ["test", "retain", "celebrity", "stranger"].map((name) => [name, label(name)]), state.subset,
      (name) => { state.subset = name; state.page = 0; });
    return make("div", {}, make("div", { class: "ex-controls" }, "People: ", choose,
      ...turning(where, (step) => { state.page += step; })), box);
  };

  // --- strength ---------------------------------------------------------------------------------------------------
  const doses = () => {
    if (!model().doses[state.form]) state.form = Object.keys(model().doses)[0];
    const levels_ = model().doses[state.form], last = levels_.length - 1;
    if (state.dose === null) state.dose = Math.max(0, levels_.findIndex((one) => one.times === 1)); // as it was chosen
    state.dose = Math.min(state.dose, last);
    const level = levels_[state.dose], before = levels_[0];
    const [shown, where] = leafed(picturesFirst(Object.keys(level.said).filter((id) => data.questions[id][0] === state.dosed)), state.turn);
    const slide = make("input", { type: "range", min: 0, max: last, step: 1, value: state.dose, "aria-label": "strength of the push",
      oninput: (e) => { state.dose = Number(e.target.value); draw(); } });
    const box = make("div", { class: "ex-cards" });
    for (const id of shown) {
      const [, , text, right] = data.questions[id];
      const changed = level.said[id] !== before.said[id];
      box.append(card(id, changed ? "changed" : "as before",
        [["asked", text], ["right", right], ["at 0", before.said[id]], [`at ${level.strength}`, level.said[id], changed]]));
    }
    return make("div", {}, make("div", { class: "ex-controls" },
      pick("form", Object.keys(model().doses).map((name) => [name, FORMS[name] ?? name]), state.form, (name) => { state.form = name; state.dose = null; }),
      " strength ", slide, make("b", {}, `${level.strength}${level.times === 1 ? " (as chosen)" : ""}`)),
      bars([["forgotten people: refused", level.refused], ["… answers that hold the fact", level.facts],
        ["… probability of the right answer", level.gone], ["others: probability of the right answer", level.kept],
        ["… refused", level.kept_refused]], "#d55e00"),
      make("div", { class: "ex-controls" }, "People: ",
        pick("people asked at this strength", [["test", "test"], ["retain", "retain"]], state.dosed, (name) => { state.dosed = name; state.turn = 0; }),
        ...turning(where, (step) => { state.turn += step; })), box);
  };

  // --- what was tried on the dev people ---------------------------------------------------------------------------
  const kinds = () => [...new Map(model().pushes.map((p) => [`${p.direction}, blocks ${p.layers.join(" ")}, ${p.scope}`, p])).keys()];
  const pushes = () => {
    const names = kinds();
    if (!names.includes(state.push)) {
      const p = model().push;
      const chosen = `${p.direction}, blocks ${p.layers.join(" ")}, ${p.scope}`;
      state.push = names.includes(chosen) ? chosen : names[0];
    }
    const own = model().pushes.filter((p) => `${p.direction}, blocks ${p.layers.join(" ")}, ${p.scope}` === state.push)
      .sort((a, b) => a.strength - b.strength);
    state.strength = Math.min(state.strength ?? own.length - 1, own.length - 1);
    const p = own[state.strength];
    const choose = pick("direction, blocks and scope", names.map((name) => [name, name]), state.push, (name) => { state.push = name; });
    const slide = make("input", { type: "range", min: 0, max: own.length - 1, step: 1, value: state.strength,
      "aria-label": "strength", oninput: (e) => { state.strength = Number(e.target.value); draw(); } });
    const figures = [["refused fluently, without the fact", p.refused], ["probability of the right answer", p.forget_prob],
      ["answers that hold the fact", p.reentry]];
    return make("div", {}, make("div", { class: "ex-controls" }, choose, " strength ", slide, make("b", {}, String(p.strength))),
      bars(figures, "#d55e00"));
  };
  const blocks = () => {
    const layers = [...new Set(model().blocks.map((b) => b.layer))].sort((a, b) => a - b);
    state.block = Math.min(state.block, layers.length - 1);
    const own = model().blocks.filter((b) => b.layer === layers[state.block]).sort((a, b) => b.auc - a.auc);
    const slide = make("input", { type: "range", min: 0, max: layers.length - 1, step: 1, value: state.block,
      "aria-label": "block", oninput: (e) => { state.block = Number(e.target.value); draw(); } });
    return make("div", {}, make("div", { class: "ex-controls" }, "block ", slide, make("b", {}, String(layers[state.block]))),
      bars(own.map((b) => [b.solver, b.auc]), "#0072b2", (auc) => Math.max(0, 2 * auc - 1))); // a bar begins at chance
  };

  // --- the page -------------------------------------------------------------------------------------------------
  const draw = () => {
    const [low, high] = range();
    const slide = make("input", { type: "range", min: low, max: high, step: (high - low) / 400, value: state.threshold,
      "aria-label": "threshold", class: "ex-wide", oninput: (e) => { state.threshold = Number(e.target.value); draw(); } });
    const marks = levels().map((t) => make("button", { type: "button",
      onclick: () => { state.threshold = t.threshold; draw(); } }, `α = ${t.alpha}`));
    const models = Object.keys(data.models).map((name) => make("button", { type: "button",
      "aria-pressed": String(name === state.model), onclick: () => { state.model = name; state.threshold = strict(); draw(); } },
      NAMES[name] ?? name));
    const fresh = root.cloneNode(false);
    fresh.append(
      make("div", { class: "ex-controls" }, ...models),
      make("h3", {}, "How far the gate opens"),
      make("div", { class: "ex-controls" }, "threshold ", slide, make("b", {}, state.threshold.toFixed(2)), ...marks),
      make("div", { class: "ex-row" }, strips(), roc(), shares()),
      make("h3", {}, "What they answer"), answers(),
      ...(Object.keys(model().doses ?? {}).length ? [make("h3", {}, "How hard they are pushed"), doses()] : []),
      make("h3", {}, "What is added, tried on the dev people"), pushes(),
      make("h3", {}, "Where one looks: AUC by block and solver, single blocks"), blocks());
    renew(root, fresh);
  };
  state.threshold = strict();
  draw();
})();
