"use strict";
// The explorer: every measured network as a dot, drawn by BokehJS. All panels share one data source, and so one selection.

(async () => {
  const header = JSON.parse(document.getElementById("explorer-header").textContent);
  const bytes = await unpacked(document.getElementById("explorer-columns").textContent);
  const { count, axes, measures } = header;
  const GOLDEN = 0.618034; // spreads neighbours evenly
  const NONE = "#b8b8b8";
  const MOST_FACETS = 12;

  let at = 0;
  const floats = () => {
    // The columns lie side by side, where float32 need not be aligned.
    const values = new Float32Array(bytes.slice(at, at + 4 * count));
    at += 4 * count;
    return values;
  };
  for (const axis of axes) {
    if (axis.levels) {
      axis.places = new Uint8Array(bytes, at, count);
      at += count;
    } else axis.values = floats();
  }
  for (const measure of measures) {
    [measure.values, measure.lower, measure.upper] = [floats(), floats(), floats()];
  }
  const letters = new TextDecoder().decode(new Uint8Array(bytes, at));
  const pictures = header.examples.length ? new Uint8Array(await unpacked(document.getElementById("explorer-pictures").textContent)) : null;
  const id = (index) => letters.slice(index * header.id_length, (index + 1) * header.id_length);

  const number = (value) => (Number.isInteger(value) ? value.toLocaleString("en") : String(+value.toPrecision(4))).replace("-", "−");
  const spoken = (axis, index) => {
    if (!axis.levels) return Number.isNaN(axis.values[index]) ? null : number(axis.values[index]);
    return axis.places[index] === 255 ? null : level(axis, axis.places[index]);
  };
  const level = (axis, place) => (axis.numeric ? String(axis.levels[place]) : axis.levels[place]);
  const named = (name) => [...axes, ...measures].find((one) => one.name === name);

  // --- controls

  const everything = [...axes, ...measures];
  const facetable = axes.filter((axis) => axis.levels && axis.levels.length <= MOST_FACETS);
  const several = measures.filter((one) => one.count === measures[0].count);
  // Of the measures of most networks, the first notion of a quantity at its middle δ.
  function usual(quantity) {
    const alike = several.filter((one) => one.quantity === quantity);
    const same = alike.filter((one) => one.notion === alike[0].notion);
    return (same[same.length >> 1] ?? measures[0]).name;
  }
  const state = { x: "test_accuracy", left: usual("R"), right: usual("D"), colour: "kind", facet: "", show: "" };
  if (facetable.some((axis) => axis.name === "dataset")) state.facet = "dataset";
  if (state.right === state.left && measures.length > 1) state.right = measures[1].name;
  // Networks of one kind differ by what they are trained for, if by anything that has a name.
  if (named("kind").levels.length === 1 && named("objective")?.levels) state.colour = "objective";

  function control(key, label, options) {
    const frame = document.createElement("label");
    const select = document.createElement("select");
    select.id = `explorer-${key}`;
    for (const one of options) {
      if (one.group) {
        const group = document.createElement("optgroup");
        group.label = one.group;
        group.append(...one.members.map(([value, text]) => new Option(text, value)));
        select.append(group);
      } else select.append(new Option(one[1], one[0]));
    }
    select.value = state[key];
    select.addEventListener("change", () => { state[key] = select.value; touched = true; redraw(); });
    frame.append(label, select);
    document.getElementById("controls").append(frame);
  }
  const listed = (ones) => ones.map((one) => [one.name, one.label]);
  const ofEither = [{ group: "measures", members: listed(measures) }, { group: "axes and results", members: listed(axes) }];
  control("x", "x", [...ofEither].reverse());
  control("left", "y of the first panels", ofEither);
  control("right", "y of the second panels", ofEither);
  control("colour", "colour", listed(axes));
  control("facet", "a panel for each", [["", "– (all in one)"], ...listed(facetable)]);
  const only = facetable.filter((axis) => axis.levels.length > 1);
  control("show", "show", [["", "all networks"], ...only.map((axis) => ({
    group: axis.label,
    members: axis.levels.map((_, place) => [`${axis.name}:${place}`, `${axis.label} ${level(axis, place)}`]),
  }))]);

  // --- columns of the source

  const jitter = Float32Array.from({ length: count }, (_, index) => ((index * GOLDEN) % 1 - 0.5) * 0.6);

  // Places on an axis: levels side by side, each spread a little; anything else as it is.
  function places(one) {
    if (!one.levels) return one.values;
    return Float32Array.from(one.places, (place, index) => (place === 255 ? NaN : place + jitter[index]));
  }

  function colours(axis) {
    if (axis.levels) {
      const shades = axis.levels.map((_, place) =>
        axis.colours?.[place] ?? (axis.numeric ? ramp(place / Math.max(1, axis.levels.length - 1)) : header.qualitative[place % header.qualitative.length]));
      return { shades, dots: Array.from(axis.places, (place) => shades[place] ?? NONE) };
    }
    const scaled = (value) => (axis.log ? Math.log(value) : value);
    const finite = axis.values.filter(Number.isFinite);
    const [low, high] = finite.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
    const span = scaled(high) - scaled(low) || 1;
    const dots = Array.from(axis.values, (value) => (Number.isNaN(value) ? NONE : ramp((scaled(value) - scaled(low)) / span)));
    return { low, high, dots };
  }
  const ramp = (share) => header.ramp[Math.round(share * (header.ramp.length - 1))];

  const index = Int32Array.from({ length: count }, (_, place) => place);
  const source = new Bokeh.ColumnDataSource({ data: { index, x: [], left: [], right: [], colour: [] } });
  const container = document.getElementById("panels");
  const touch = matchMedia("(pointer: coarse)").matches;

  // --- what a dot is

  // BokehJS shows it inside a shadow root, which the page's style does not reach.
  function card(place) {
    const made = (kind, style, text = "") => Object.assign(document.createElement(kind), { style, textContent: text });
    const frame = made("div", "font: 12px/1.4 system-ui, sans-serif; max-width: 23rem; white-space: normal");
    frame.className = "dot";
    frame.append(made("b", "display: block", id(place)));
    const line = (label, value) => [made("span", "color: #5b6675", `${label} `), value];
    const facts = axes
      .filter((axis) => axis.name !== "kind" && axis.name !== "test_accuracy")
      .map((axis) => [axis.label, spoken(axis, place)])
      .filter(([, value]) => value !== null);
    const accuracy = named("test_accuracy")?.values[place];
    if (Number.isFinite(accuracy)) facts.unshift(["test accuracy", `${(100 * accuracy).toFixed(2)} %`]);
    const known = made("div", "margin: .2em 0 .4em");
    known.append(...facts.flatMap(([label, value], number) => [number ? " · " : "", ...line(label, value)]));
    frame.append(known);
    for (const measure of measures) {
      const value = measure.values[place];
      // A middle δ's measure is one of the others, under another name.
      if (measure.middle || Number.isNaN(value)) continue;
      const row = made("div", "");
      const ends = [measure.lower[place], measure.upper[place]].map((end) => end.toFixed(3));
      row.append(...line(measure.label, `${value.toFixed(3)} [${ends.join(", ")}]`));
      frame.append(row);
    }
    return frame;
  }

  let pinned = null; // the network that the next one is compared with
  const tools = selection({
    axes, measures, id, spoken, number, source, pictures, examples: header.examples,
    pinned: () => pinned,
    pin: (place) => { pinned = place; tellChosen(); },
  });

  function tellChosen() {
    const chosen = Array.from(source.selected.indices);
    const parts = [state.x, state.left, state.right].map(named).filter((one) => !one.levels).map((one) => {
      const values = Float32Array.from(chosen, (place) => one.values[place]).filter(Number.isFinite).sort();
      return values.length ? `${one.label}: median ${number(values[values.length >> 1])}, from ${number(values[0])} to ${number(values[values.length - 1])}` : null;
    });
    const summary = chosen.length ? `${chosen.length.toLocaleString("en")} networks are selected. ${parts.filter(Boolean).join("; ")}.` : "No network is selected.";
    document.getElementById("chosen").replaceChildren(...tools.told(chosen, summary, card));
    document.body.dataset.chosen = chosen.length;
    share();
  }
  source.selected.properties.indices.change.connect(tellChosen);

  function legend(axis, found) {
    const frame = document.getElementById("colours");
    if (!axis.levels) {
      const bar = document.createElement("span");
      bar.className = "ramp";
      bar.style.background = `linear-gradient(90deg, ${header.ramp.join(",")})`;
      frame.replaceChildren(`${axis.label}: ${number(found.low)}`, bar, `${number(found.high)}${axis.log ? " (logarithmic)" : ""}`);
      return;
    }
    frame.replaceChildren(`${axis.label}: `, ...axis.levels.map((_, place) => {
      const chip = document.createElement("button");
      chip.type = "button";
      const mark = chip.appendChild(document.createElement("i"));
      mark.style.background = found.shades[place];
      chip.append(level(axis, place));
      chip.addEventListener("click", () => {
        source.selected.indices = Array.from(index.filter((one) => axis.places[one] === place && shown[one]));
      });
      return chip;
    }));
  }

  // --- a view as the address's fragment

  const VIEW = "#view:";
  const MOST_SHARED = 40; // networks that an address names

  function share() {
    const view = new URLSearchParams(state);
    const chosen = Array.from(source.selected.indices);
    if (chosen.length && chosen.length <= MOST_SHARED) view.set("selected", chosen.map(id).join(" "));
    if (pinned !== null) view.set("beside", id(pinned));
    viewed = `${VIEW}${view}`;
    if (touched) history.replaceState(null, "", viewed);
  }

  function restore() {
    if (!location.hash.startsWith(VIEW) || location.hash === viewed) return false;
    const view = new URLSearchParams(location.hash.slice(VIEW.length));
    for (const key of Object.keys(state)) {
      const select = document.getElementById(`explorer-${key}`);
      if (view.has(key) && [...select.options].some((one) => one.value === view.get(key))) select.value = state[key] = view.get(key);
    }
    const places = new Map(Array.from(index, (place) => [id(place), place]));
    pinned = places.get(view.get("beside")) ?? null;
    wanted = (view.get("selected") ?? "").split(" ").map((one) => places.get(one)).filter((place) => place !== undefined);
    touched = true;
    return true;
  }

  let viewed = "", wanted = [];
  let touched = false; // an address that nobody asked for is left alone

  const actions = document.getElementById("actions");
  const link = tools.button("copy a link to this view", async () => {
    touched = true;
    share();
    try {
      await navigator.clipboard.writeText(location.href);
      link.textContent = "the link is copied";
    } catch {
      link.textContent = "the link is in the address bar";
    }
    setTimeout(() => { link.textContent = "copy a link to this view"; }, 3000);
  });
  link.id = "copy-link";
  const file = tools.button("download as CSV", () => {
    const chosen = Array.from(source.selected.indices);
    tools.download(chosen.length ? chosen : Array.from(index.filter((place) => shown[place])));
  });
  file.id = "download";
  file.title = "the selected networks, or all that are shown";
  actions.append(link, file);
  if (header.examples.length) {
    const select = tools.made("select", { id: "explorer-images" }, new Option("–", ""));
    for (const { network } of header.examples) {
      const known = axes.filter((axis) => axis.levels && axis.name !== "kind" && axis.name !== "status").map((axis) => spoken(axis, network)).filter(Boolean);
      select.append(new Option(`${known.slice(0, 7).join(" ")} (${id(network)})`, network));
    }
    select.addEventListener("change", () => { if (select.value) source.selected.indices = [Number(select.value)]; });
    actions.append(tools.made("label", {}, "images of network ", select));
  }

  // --- panels

  let shown = new Uint8Array(count).fill(1);
  let page = null; // the document of the panels that are drawn

  function range(values) {
    let low = Infinity, high = -Infinity;
    for (let one = 0; one < count; one++) {
      if (shown[one] && values[one] < low) low = values[one];
      if (shown[one] && values[one] > high) high = values[one];
    }
    if (low > high) [low, high] = [0, 1];
    const room = 0.05 * (high - low) || 0.05;
    return new Bokeh.Range1d({ start: low - room, end: high + room });
  }

  // A panel is as high as some forty-five letters are long: longer labels take several lines, each of whole phrases.
  const LONGEST = 42;
  function broken(label) {
    return label.split(", ").reduce((lines, phrase) => {
      const last = lines.length - 1;
      if (last < 0 || lines[last].length + phrase.length > LONGEST) return [...lines, phrase];
      return [...lines.slice(0, last), `${lines[last]}, ${phrase}`];
    }, []).join(",\n");
  }

  function scaledAxis(axis, one) {
    if (one.levels) {
      axis.ticker = new Bokeh.FixedTicker({ ticks: one.levels.map((_, place) => place), minor_ticks: [] });
      axis.major_label_overrides = new Map(one.levels.map((_, place) => [place, level(one, place)]));
    } else if (one.name.endsWith("accuracy")) axis.formatter = new Bokeh.NumeralTickFormatter({ format: "0%" });
    axis.axis_label = broken(one.label);
    axis.axis_label_text_font_style = "normal";
  }

  function panel(title, column, one, ranges, members) {
    const x = named(state.x);
    const logarithmic = (of) => !of.levels && of.log;
    const figure = Bokeh.Plotting.figure({
      title, height: 330, sizing_mode: "stretch_width", output_backend: "webgl", min_border_right: 12,
      x_axis_type: logarithmic(x) ? "log" : "linear", y_axis_type: logarithmic(one) ? "log" : "linear",
      x_range: ranges.x, y_range: ranges[column], tools: [],
    });
    figure.xgrids.forEach((grid) => { grid.grid_line_color = "#ececec"; });
    figure.ygrids.forEach((grid) => { grid.grid_line_color = "#ececec"; });
    figure.outline_line_color = null;
    figure.xaxes.forEach((axis) => scaledAxis(axis, x));
    figure.yaxes.forEach((axis) => scaledAxis(axis, one));
    const alpha = Math.max(0.15, Math.min(0.75, 18 / Math.sqrt(members.length)));
    const view = new Bokeh.CDSView({ filter: new Bokeh.IndexFilter({ indices: members }) });
    const dots = figure.scatter({ field: "x" }, { field: column }, {
      source, view, size: members.length > 3000 ? 4 : 6, line_color: null, fill_color: { field: "colour" }, fill_alpha: alpha,
      selection_fill_alpha: 0.9, nonselection_fill_alpha: 0.06, hover_fill_color: "#000000",
    });
    const box = new Bokeh.BoxSelectTool({ continuous: false });
    const pan = new Bokeh.PanTool();
    const tap = new Bokeh.TapTool();
    const hover = new Bokeh.HoverTool({ renderers: [dots], limit: 1, tooltips: (_, vars) => card(vars.index), attachment: "horizontal" });
    figure.add_tools(box, new Bokeh.LassoSelectTool({ continuous: false }), pan, new Bokeh.WheelZoomTool(), tap, new Bokeh.ResetTool(), hover);
    figure.toolbar.logo = null;
    figure.toolbar.autohide = false;
    // On a touch screen a drag scrolls the page.
    figure.toolbar.active_drag = touch ? null : box;
    figure.toolbar.active_scroll = null;
    return figure;
  }

  async function draw() {
    const [filterName, filterPlace] = state.show.split(":");
    const filter = filterName ? named(filterName) : null;
    shown = Uint8Array.from(index, (one) => (filter ? filter.places[one] === Number(filterPlace) : 1));
    const ones = { x: named(state.x), left: named(state.left), right: named(state.right) };
    const columns = { x: places(ones.x), left: places(ones.left), right: places(ones.right) };
    const colour = named(state.colour);
    const found = colours(colour);
    source.selected.indices = [];
    const again = wanted;
    wanted = [];
    source.data = { index, ...columns, colour: found.dots };
    legend(colour, found);

    const facet = state.facet ? named(state.facet) : null;
    const groups = facet
      ? facet.levels.map((_, place) => [`${facet.label} ${level(facet, place)}`, (one) => facet.places[one] === place])
      : [["", () => true]];
    const ranges = { x: range(columns.x), left: range(columns.left), right: range(columns.right) };
    const either = (one) => Number.isFinite(columns.left[one]) || Number.isFinite(columns.right[one]);
    const drawable = (one) => shown[one] && Number.isFinite(columns.x[one]) && either(one);
    const there = groups
      .map(([label, belongs]) => [label, Array.from(index.filter((one) => drawable(one) && belongs(one)))])
      .filter(([, members]) => members.length || !facet);
    const figures = [];
    for (const column of ["left", "right"]) {
      for (const [label, members] of there) {
        const known = members.filter((one) => Number.isFinite(columns[column][one]));
        const counted = `${known.length.toLocaleString("en")} networks`;
        figures.push(panel(label ? `${label}: ${counted}` : counted, column, ones[column], ranges, known));
      }
    }
    const across = facet ? Math.min(4, Math.max(2, there.length)) : 2;
    container.style.gridTemplateColumns = `repeat(${across}, minmax(0, 1fr))`;
    // A model belongs to one document, so the last one lets go of the source first.
    page?.clear();
    const frames = figures.map(() => document.createElement("div"));
    container.replaceChildren(...frames);
    page = new Bokeh.Document();
    figures.forEach((figure) => page.add_root(figure));
    // Every panel has its frame; BokehJS wants an element for whatever else a document may show.
    await Bokeh.embed.add_document_standalone(page, document.createElement("div"), frames);
    await new Promise((done) => { if (page.is_idle) done(); else page.idle.connect(() => done()); });
    if (again.length) source.selected.indices = again;
    else tellChosen();
    document.body.dataset.panels = figures.length;
    document.body.dataset.drawn ??= String(Math.round(performance.now()));
  }

  // One drawing at a time: BokehJS still lays out panels when it says that they are there.
  let drawing = Promise.resolve();
  function redraw() {
    drawing = drawing.then(draw);
    return drawing;
  }

  window.addEventListener("hashchange", () => { if (restore()) redraw(); });
  window.explorer = { source, state, id, csv: tools.csv };
  const asked = restore();
  await redraw();
  if (asked) document.getElementById("explorer").scrollIntoView();
})();
