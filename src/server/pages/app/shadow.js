// Shadow traffic: copies of requests that go to another model, whose answers nobody gets. Shown; set up over the API.
import {get} from './api.js';
import {h, note, panel, setClass, setHidden, setText, syncRows} from './dom.js';
import * as format from './format.js';
import {Poller} from './poller.js';
import {sentenceFor} from './store.js';

const COLUMNS = [
  ['Name'], ['Copies of'], ['Go to'], ['Share', 'num'], ['Sent', 'num'], ['Completed', 'num'], ['Dropped', 'num'],
  ['Failed', 'num']
];

function shadowRow(shadow) {
  const badge = h('span');
  const cells = COLUMNS.slice(1).map(([label, kind]) => h('td', {class: kind ?? '', data: {label}}));
  return {
    node:
        h('tr', {},
          h('th', {scope: 'row'}, h('span', {class: 'line'}, h('span', {class: 'name', text: shadow.name}), badge)),
          ...cells),
    badge,
    cells
  };
}

function updateRow({badge, cells}, shadow) {
  setText(badge, shadow.enabled ? 'on' : 'off');
  setClass(badge, `badge ${shadow.enabled ? 'good' : 'quiet'}`);
  const copies = shadow.copies ?? {};
  const values = [
    shadow.model || 'every model', shadow.shadow_model, format.percent(shadow.share),
    ...['sent', 'completed', 'dropped', 'failed'].map((key) => format.count(copies[key]))
  ];
  cells.forEach((cell, i) => setText(cell, values[i]));
}

export function createShadow() {
  const rows = h('tbody');
  const table =
      h('div', {class: 'scroll', hidden: true},
        h('table', {class: 'data cards'},
          h('thead', {},
            h('tr', {}, ...COLUMNS.map(([label, kind]) => h('th', {scope: 'col', class: kind ?? '', text: label})))),
          rows));
  const message = note('');
  const parts = panel('Shadow traffic', message, table);
  const poller = new Poller(async () => {
    let data = [];
    let error = null;
    try {
      data = (await get('/admin/shadow')).data;
    } catch (caught) {
      error = caught;
    }
    setHidden(message, error === null && data.length > 0);
    setHidden(table, error !== null || data.length === 0);
    setText(
        message,
        error === null ? 'No request is copied to another model.'
                       : sentenceFor(error, 'shadow traffic (/admin/shadow)'));
    if (error !== null) throw error;
    syncRows(rows, data, (shadow) => shadow.name, shadowRow, updateRow);
  }, 3);
  return {root: parts.root, poller};
}
