// Small helpers for a page without a framework.

export const $ = (id) => document.getElementById(id);

/** An element with properties, and children that are elements or text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Replace the rows of a table's body, leaving what is the same alone: a reader may be selecting it. */
export function setRows(body, rows) {
  rows.forEach((row, index) => {
    const line = body.rows[index] ?? body.insertRow();
    line.className = row.className ?? "";
    row.cells.forEach((cell, column) => {
      const { text, label } = cell;
      const td = line.cells[column] ?? line.insertCell();
      if (td.textContent !== text) td.textContent = text;
      td.dataset.label = label;
    });
  });
  while (body.rows.length > rows.length) body.deleteRow(-1);
}
