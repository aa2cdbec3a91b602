"use strict";
// A click on a heading sorts its table: ascending, descending, as it was. Texts that begin with a
// number are sorted by it; empty cells come last.
const NUMBER = /^[^\d−+-]{0,2}([−+-]?(\d+\.?\d*|\.\d+)(e[−+-]?\d+)?)/i;
const valueOf = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const found = NUMBER.exec(text);
  return { text, number: found ? Number(found[1].replaceAll("−", "-")) : NaN };
};
const compare = (a, b) => {
  if (!a.text || !b.text) return !a.text - !b.text;
  const numbers = !Number.isNaN(a.number) && !Number.isNaN(b.number);
  return (numbers && a.number - b.number) || a.text.localeCompare(b.text);
};

for (const table of document.querySelectorAll("table.plain")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 2) continue;
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.className = "sort";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "none" };
      const order = next[heading.getAttribute("aria-sort")] ?? "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order);
      const values = new Map(rows.map((row) => [row, valueOf(row, column)]));
      const sorted = [...rows];
      if (order !== "none") {
        const sign = order === "ascending" ? 1 : -1;
        sorted.sort((one, other) => {
          const [a, b] = [values.get(one), values.get(other)];
          return (a.text && b.text ? sign : 1) * compare(a, b);
        });
      }
      body.append(...sorted);
    });
  });
}

// A click on a frame has the film beside it jump there.
for (const frame of document.querySelectorAll("[data-at-s]")) {
  const film = frame.closest("article").querySelector("video");
  const at = film ? Number(frame.dataset.atS) - Number(film.dataset.startS) : NaN;
  if (!(at >= 0 && at <= Number(film.dataset.lastS))) continue;
  frame.classList.add("seeks");
  frame.tabIndex = 0;
  frame.setAttribute("role", "button");
  const seek = () => {
    film.closest("details").open = true;
    film.currentTime = at;
    film.play().catch(() => {});  // a browser that lets no film begin by itself shows it still
  };
  frame.addEventListener("click", seek);
  frame.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    seek();
  });
}

// A link to a film that is folded away unfolds it.
for (const link of document.querySelectorAll('a[href^="#film-"]')) {
  link.addEventListener("click", () => {
    document.getElementById(link.hash.slice(1)).open = true;
  });
}
