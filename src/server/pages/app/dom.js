// Elements from code. Text goes in as text, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

function put(node, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === 'on') {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else if (name === 'text') {
      node.textContent = value;
    } else if (name === 'data') {
      Object.assign(node.dataset, value);
    } else if (['value', 'checked', 'disabled', 'hidden', 'selected', 'open'].includes(name)) {
      node[name] = value;
    } else {
      node.setAttribute(name, value);
    }
  }
  return node;
}

// h('button', {class: 'primary', on: {click}}, 'Load', icon)
export function h(tag, props = {}, ...children) {
  const node = put(document.createElement(tag), props);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function svg(tag, props = {}, ...children) {
  const node = put(document.createElementNS(SVG, tag), props);
  node.append(...children);
  return node;
}

// One of the symbols of index.html.
export function icon(name) {
  return svg('svg', {class: 'icon', 'aria-hidden': 'true'}, svg('use', {href: `#i-${name}`}));
}

export function iconButton(name, label, click) {
  return h(
      'button', {type: 'button', class: 'icon-button', title: label, 'aria-label': label, on: {click}}, icon(name));
}

// What polls write often is written only when it changed: selections and the layout stay.
export function setText(node, text) {
  const value = String(text);
  if (node.textContent !== value) node.textContent = value;
}

export function setClass(node, value) {
  if (node.getAttribute('class') !== value) node.setAttribute('class', value);
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

const lists = new WeakMap();  // parent -> Map(key -> row)

// Keeps one row per item, in order, and reuses what is there: `create(item)` gives {node, ...}, `update(row, item)`
// fills it.
export function syncRows(parent, items, keyOf, create, update) {
  const rows = lists.get(parent) ?? new Map();
  lists.set(parent, rows);
  const wanted = new Set(items.map(keyOf));
  for (const [key, row] of rows) {
    if (wanted.has(key)) continue;
    row.node.remove();
    rows.delete(key);
  }
  let at = parent.firstElementChild;
  for (const item of items) {
    let row = rows.get(keyOf(item));
    if (!row) {
      row = create(item);
      rows.set(keyOf(item), row);
    }
    update(row, item);
    if (row.node === at) {
      at = at.nextElementSibling;
    } else {
      parent.insertBefore(row.node, at);
    }
  }
}

export function panel(title, ...children) {
  const heading = h('h2', {text: title});
  const actions = h('div', {class: 'panel-actions'});
  const head = h('header', {class: 'panel-head'}, heading, actions);
  const body = h('div', {class: 'panel-body'}, ...children);
  return {root: h('section', {class: 'panel'}, head, body), actions, body, heading};
}

// One calm sentence where there is nothing else to show.
export function note(text, kind = '') { return h('p', {class: `note ${kind}`, text}); }
