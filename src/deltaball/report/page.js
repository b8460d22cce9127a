"use strict";
// Tables that sort and filter, and pictures that grow. No library: the page must not depend on one to be read.

// The bytes behind base64 of gzip, as `packed` in packed.py makes it.
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (one) => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// What a cell sorts by: its first number if it begins with one, else its text; an empty one or a dash comes last.
function sortKey(text) {
  const plain = text.trim().replace(/[−–]/g, "-").replace(/,(?=\d{3})/g, "");
  if (plain === "" || plain === "-") return null;
  const below = plain.startsWith("<");
  const number = parseFloat(below ? plain.slice(1) : plain);
  if (Number.isNaN(number) || !/^[-+<.\d\s]/.test(plain)) return plain.toLowerCase();
  return below ? number - 1e-9 : number;
}

function inOrder(first, second) {
  if (first === null || second === null) return (first === null) - (second === null);
  if (typeof first !== typeof second) return typeof first === "number" ? -1 : 1;
  return first < second ? -1 : first > second ? 1 : 0;
}

// Gives every heading a button; `sort(column, direction)` puts the rows in order.
function sortable(headings, sort) {
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      headings.forEach((one) => one.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
      sort(column, direction);
    });
  });
}

// Empty cells stay last in either direction.
function sorted(rows, keyed, direction) {
  return rows
    .map((row) => [keyed(row), row])
    .sort(([one], [two]) => inOrder(one, two) * (one === null || two === null ? 1 : direction))
    .map(([, row]) => row);
}

for (const table of document.querySelectorAll(".wide > table")) {
  const headings = [...table.rows[0].cells];
  sortable(headings, (column, direction) => {
    const rows = [...table.rows].slice(1);
    table.tBodies[0].append(...sorted(rows, (row) => sortKey(row.cells[column].textContent), direction));
  });
}

// Tables of thousands of rows are unpacked when they are opened, and drawn a piece at a time.
const ROWS_AT_ONCE = 200;

async function openTable(details) {
  const { columns, rows } = JSON.parse(new TextDecoder().decode(await unpacked(details.querySelector("script").textContent)));
  const filter = document.createElement("input");
  filter.type = "search";
  filter.placeholder = "filter rows";
  filter.setAttribute("aria-label", "filter rows");
  const frame = document.createElement("div");
  frame.className = "wide";
  const table = frame.appendChild(document.createElement("table"));
  const headings = columns.map((name) => {
    const heading = document.createElement("th");
    heading.textContent = name.replaceAll("_", " ");
    if (rows.some((row) => typeof row[columns.indexOf(name)] === "string")) heading.className = "left";
    return heading;
  });
  table.createTHead().insertRow().append(...headings);
  const body = table.createTBody();
  const more = document.createElement("button");
  more.type = "button";
  let order = rows, shown = ROWS_AT_ONCE;
  const draw = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length
      ? order.filter((row) => { const text = row.join(" ").toLowerCase(); return words.every((word) => text.includes(word)); })
      : order;
    body.replaceChildren(...found.slice(0, shown).map((row) => {
      const line = document.createElement("tr");
      row.forEach((value, index) => {
        const cell = line.insertCell();
        cell.textContent = value === null ? "–" : typeof value === "number" ? String(value).replace("-", "−") : value;
        cell.className = headings[index].className;
      });
      return line;
    }));
    more.hidden = found.length <= shown;
    more.textContent = `${(found.length - shown).toLocaleString("en")} more rows`;
  };
  sortable(headings, (column, direction) => {
    order = sorted(rows, (row) => (typeof row[column] === "string" ? row[column].toLowerCase() : row[column]), direction);
    draw();
  });
  filter.addEventListener("input", draw);
  more.addEventListener("click", () => { shown *= 10; draw(); });
  details.append(filter, frame, more);
  reachable.observe(frame);
  draw();
}

for (const details of document.querySelectorAll("details.data")) {
  details.addEventListener("toggle", () => openTable(details), { once: true });
}

// A figure fills the window when it is pressed.
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll("figure button")) {
  button.addEventListener("click", () => {
    const [shown, picture] = [dialog.querySelector("img"), button.querySelector("img")];
    [shown.src, shown.alt] = [picture.src, picture.alt];
    dialog.showModal();
  });
}
dialog.addEventListener("click", () => dialog.close());

// The summary bar shows the claims of one verdict, and all of them again.
for (const button of document.querySelectorAll(".verdicts button")) {
  button.addEventListener("click", () => {
    const wanted = button.getAttribute("aria-pressed") === "true" ? null : button.dataset.verdict;
    for (const one of document.querySelectorAll(".verdicts button")) {
      one.setAttribute("aria-pressed", String(one.dataset.verdict === wanted));
    }
    for (const claim of document.querySelectorAll(".claims > li")) {
      claim.hidden = wanted !== null && claim.dataset.verdict !== wanted;
    }
  });
}

// What scrolls must be reached by keyboard; what does not is no stop on the way.
const reachable = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const scrolls = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
    if (scrolls) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const frame of document.querySelectorAll(".wide, .figures, pre")) reachable.observe(frame);
