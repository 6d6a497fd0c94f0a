"use strict";
// Tables are sorted by a column when its head is pressed: numbers by their value, else as text.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table");
    const place = [...head.parentNode.children].indexOf(head);
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const key = (row) => {
      const cell = row.children[place], number = parseFloat(cell.dataset.value ?? cell.textContent);
      return Number.isNaN(number) ? cell.textContent.trim() : number;
    };
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      const told = typeof x === "number" ? x - y : x.localeCompare(y);
      return up ? told : -told;
    };
    body.append(...[...body.rows].sort(order));
  });
}
