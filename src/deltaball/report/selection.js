"use strict";
// What the explorer says of the networks that are selected: one, two beside each other, or many; their images, their CSV.

// `explored` has the `axes` and `measures` with their columns, `id(place)`, `spoken(axis, place)`, `number(value)`,
// the `source` whose selection counts, `pinned()` and `pin(place)`, and `pictures`: null, or the bytes of all images.
function selection(explored) {
  const { axes, measures, id, spoken, number, source, pinned, pin, pictures, examples } = explored;
  const made = (kind, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(kind), properties);
    element.append(...children);
    return element;
  };
  const button = (text, press) => {
    const element = made("button", { type: "button", className: "plain" }, text);
    element.addEventListener("click", press);
    return element;
  };
  const alone = measures.filter((one) => !one.middle); // a middle δ's measure is one of the others, under another name
  const interval = (measure, place) => {
    const [value, ...ends] = [measure.values, measure.lower, measure.upper].map((column) => column[place].toFixed(3));
    return Number.isNaN(measure.values[place]) ? "–" : `${value} [${ends.join(", ")}]`;
  };

  // --- two networks

  function compared(first, second) {
    const rows = [];
    const row = (label, one, two, note, differs) => {
      const line = made("tr", {}, made("td", {}, label), made("td", {}, one), made("td", {}, two), made("td", { className: "left" }, note));
      if (differs) line.className = "differs";
      rows.push(line);
    };
    const [alike, apart] = [[], { [first]: [], [second]: [] }];
    for (const axis of axes.filter((one) => one.name !== "kind")) {
      const [one, two] = [first, second].map((place) => spoken(axis, place));
      if (one !== null && one === two) alike.push(`${axis.label} ${one}`);
      else if (one !== null && two !== null) row(axis.label, one, two, "", false);
      else if (one !== null) apart[first].push(`${axis.label} ${one}`);
      else if (two !== null) apart[second].push(`${axis.label} ${two}`);
    }
    for (const measure of alone) {
      const [one, two] = [measure.values[first], measure.values[second]];
      if (Number.isNaN(one) && Number.isNaN(two)) continue;
      const disjoint = measure.lower[first] > measure.upper[second] || measure.lower[second] > measure.upper[first];
      const note = Number.isNaN(one - two) ? "" : `${number(+(two - one).toFixed(3))}, ${disjoint ? "intervals apart" : "intervals overlap"}`;
      row(measure.label, interval(measure, first), interval(measure, second), note, disjoint);
    }
    const heads = ["", id(first), id(second), "second less first"].map((text) => made("th", { scope: "col" }, text));
    heads[3].className = "left";
    const table = made("table", {}, made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...rows));
    const frame = made("div", { className: "wide" }, table);
    reachable.observe(frame);
    const lists = [["Both", alike], [`Only ${id(first)}`, apart[first]], [`Only ${id(second)}`, apart[second]]];
    const lines = lists.filter(([, facts]) => facts.length).map(([name, facts]) => made("p", { className: "soft" }, `${name}: ${facts.join(" · ")}.`));
    return made("div", { id: "compared" }, frame, ...lines);
  }

  // --- images

  function canvas({ at, height, width, channels }, text) {
    const element = made("canvas", { width, height });
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", text);
    const image = new ImageData(width, height);
    for (let pixel = 0; pixel < width * height; pixel++) {
      for (let colour = 0; colour < 3; colour++) {
        image.data[4 * pixel + colour] = pictures[at + pixel * channels + (channels === 3 ? colour : 0)];
      }
      image.data[4 * pixel + 3] = 255;
    }
    element.getContext("2d").putImageData(image, 0, 0);
    return element;
  }

  function gallery(place) {
    const found = examples.find((one) => one.network === place);
    if (!found) return null;
    const shape = { height: found.height, width: found.width, channels: found.channels };
    const cell = (at, text, told, changed) =>
      made("td", { className: changed ? "changed" : "" }, canvas({ at, ...shape }, text), made("span", {}, told));
    const heading = (text) => made("th", { scope: "row" }, text);
    const first = found.points.map((point) => cell(point.at, `test image of class ${point.label}, taken for ${point.predicted}`,
      point.predicted === point.label ? `${point.label}` : `${point.predicted} (is ${point.label})`, false));
    const rows = [made("tr", {}, heading("image"), ...first)];
    found.points[0].twins.forEach(({ ball, delta, closest }, number) => {
      const cells = found.points.map(({ predicted, twins }) => {
        const { at, became } = twins[number];
        return cell(at, `its twin at δ = ${delta}, taken for ${became}`, became === predicted ? `still ${became}` : `→ ${became}`, became !== predicted);
      });
      rows.push(made("tr", {}, heading(closest ? `closest in ${ball}, ${closest}` : `${ball} δ = ${delta}`), ...cells));
    });
    const caption = made("caption", {}, `Test points ${found.points.length === 1 ? "1" : `1 to ${found.points.length}`} and their twins by ${found.by}, as network ${id(place)} sees them`);
    const table = made("table", { className: "gallery" }, caption, made("tbody", {}, ...rows));
    const frame = made("div", { className: "wide" }, table);
    reachable.observe(frame);
    return frame;
  }

  // --- a file

  function csv(places) {
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const plain = (value) => (Number.isFinite(value) ? String(+value.toPrecision(7)) : "");
    const columns = [["network_id", id], ...axes.filter((one) => one.name !== "kind").map((axis) => [axis.name,
      (place) => (axis.levels ? quoted(String(axis.levels[axis.places[place]] ?? "")) : plain(axis.values[place]))])];
    for (const measure of alone) {
      for (const kind of ["values", "lower", "upper"]) {
        columns.push([kind === "values" ? measure.name : `${measure.name} ${kind}`, (place) => plain(measure[kind][place])]);
      }
    }
    const lines = places.map((place) => columns.map(([, value]) => value(place)).join(","));
    return [columns.map(([name]) => quoted(name)).join(","), ...lines, ""].join("\n");
  }

  function download(places) {
    const link = made("a", { download: "networks.csv", href: URL.createObjectURL(new Blob([csv(places)], { type: "text/csv" })) });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // --- what is told below the panels

  function told(chosen, summary, card) {
    if (chosen.length === 0) return [summary];
    if (chosen.length > 1) {
      const list = made("details", {}, made("summary", {}, "Their ids"),
        made("pre", {}, chosen.slice(0, 1000).map(id).join("\n") + (chosen.length > 1000 ? "\n…" : "")));
      const both = chosen.length === 2 ? [compared(...chosen)] : [];
      return [made("p", {}, summary), ...both, list];
    }
    const [place] = chosen, other = pinned();
    const pressed = other === null ? button("compare with the next", () => pin(place)) : button("stop comparing", () => pin(null));
    const comparing = other !== null && other !== place;
    const images = (comparing ? [other, place] : [place]).map(gallery).filter(Boolean);
    const body = made("div", {}, comparing ? compared(other, place) : card(place), made("p", {}, pressed, other === place ? " now choose another network" : ""));
    return [made("div", { className: "told" }, body, ...images)];
  }

  return { told, csv, download, button, made };
}
