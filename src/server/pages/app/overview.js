// Overview: what the server does now, and did in the last five minutes.
import {TimeSeries} from './chart.js';
import {h, note, panel, setHidden, setText, syncRows} from './dom.js';
import * as format from './format.js';
import {isEmpty, listen, sentenceFor, state} from './store.js';

const NUM_COLOURS = 6;
const LATENCIES = [
  ['time_to_first_token', 'First token'],
  ['inter_token', 'Between tokens'],
  ['end_to_end', 'Whole answer'],
];
const QUANTILES = ['p50', 'p95', 'p99'];

function tile(label) {
  const value = h('strong', {class: 'num', text: format.NONE});
  const more = h('span', {class: 'more num'});
  return {root: h('div', {class: 'tile'}, h('span', {class: 'label', text: label}), value, more), value, more};
}

function firstSteps() {
  const steps = [
    ['Register a model.', 'Its source is a directory below --model-roots, or a hub id such as ORG/NAME.'],
    ['Load it, or just ask it something.', 'A registered model loads by itself at its first request.'],
    ['Then send it traffic.', 'The playground is one way; any OpenAI client with this address is another.'],
  ];
  return h(
      'section', {class: 'panel first-steps', hidden: true}, h('h2', {text: 'No model is registered yet'}),
      h('ol', {}, ...steps.map(([title, text]) => h('li', {}, h('strong', {text: title}), ' ', text))),
      h('p', {}, 'From a shell: ', h('code', {text: 'inferneo register story models/inferneo-story'})),
      h('a', {class: 'button primary', href: '#/models/new', text: 'Register a model'}));
}

class MemoryPanel {
  constructor() {
    this.bar = h('div', {class: 'stack', role: 'img'});
    this.legend = h('ul', {class: 'legend'});
    this.total = h('span', {class: 'readout num'});
    const parts = panel('Memory', this.bar, this.legend);
    parts.actions.append(this.total);
    this.root = parts.root;
  }

  // Resident models by size, then what is not a model's own.
  parts() {
    const models = (state.stats?.models ?? state.models ?? []).filter((model) => model.memory_bytes > 0);
    const parts = models.map((model) => ({id: model.id, label: model.id, bytes: model.memory_bytes}));
    parts.sort((a, b) => a.id.localeCompare(b.id));
    parts.forEach((part, i) => Object.assign(part, {colour: i < NUM_COLOURS ? `c${i + 1}` : 'c0'}));
    return parts;
  }

  update() {
    const memory = state.stats?.memory ?? {used: state.memory?.used_bytes, budget: state.memory?.budget_bytes};
    if (typeof memory.used !== 'number') return;
    const parts = this.parts();
    const rest = memory.used - parts.reduce((sum, part) => sum + part.bytes, 0);
    if (rest > 0) parts.push({id: '·shared', label: 'Shared and overhead', bytes: rest, colour: 'c0'});
    const free = Math.max(0, memory.budget - memory.used);
    setText(
        this.total,
        `${format.bytes(memory.used)} of ${format.bytes(memory.budget)} (${
            format.percent(memory.used / memory.budget)})`);
    this.bar.setAttribute('aria-label', `${format.bytes(memory.used)} of ${format.bytes(memory.budget)} used`);
    syncRows(this.bar, parts, (part) => part.id, () => ({node: h('span')}), ({node}, part) => {
      node.className = part.colour;
      node.style.width = `${Math.max(0.3, 100 * part.bytes / memory.budget)}%`;
      node.title = `${part.label}: ${format.bytes(part.bytes)}`;
    });
    const rows = [...parts, {id: '·free', label: 'Free', bytes: free, colour: 'free'}];
    syncRows(
        this.legend, rows, (part) => part.id,
        () => {
          const [swatch, label, size] = [h('i'), h('span', {class: 'name'}), h('span', {class: 'num'})];
          return {node: h('li', {}, swatch, label, size), swatch, label, size};
        },
        (row, part) => {
          row.swatch.className = part.colour;
          setText(row.label, part.label);
          setText(row.size, format.bytes(part.bytes));
        });
  }
}

class LatencyPanel {
  constructor() {
    const groups =
        h('tr', {}, h('th', {rowspan: 2, scope: 'col', text: 'Model'}),
          ...LATENCIES.map(([, label]) => h('th', {colspan: 3, scope: 'colgroup', class: 'group', text: label})),
          h('th', {rowspan: 2, scope: 'col', class: 'num group', text: 'Requests'}),
          h('th', {rowspan: 2, scope: 'col', class: 'num', text: 'Errors'}));
    const quantiles = h(
        'tr', {},
        ...LATENCIES.flatMap(
            () =>
                QUANTILES.map((name, i) => h('th', {scope: 'col', class: i === 0 ? 'num group' : 'num', text: name}))));
    this.rows = h('tbody');
    this.table =
        h('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Latency by model'},
          h('table', {class: 'data'}, h('thead', {}, groups, quantiles), this.rows));
    this.empty = note('Nothing has been measured yet. Numbers come with the first answers.');
    this.root = panel('Latency', this.table, this.empty).root;
  }

  update() {
    const models = (state.stats?.models ?? []).filter((model) => model.requests > 0);
    setHidden(this.table, models.length === 0);
    setHidden(this.empty, models.length > 0);
    syncRows(
        this.rows, models, (model) => model.id,
        (model) => {
          const cells =
              LATENCIES.flatMap(() => QUANTILES.map((_, i) => h('td', {class: i === 0 ? 'num group' : 'num'})));
          const [requests, errors] = [h('td', {class: 'num group'}), h('td', {class: 'num'})];
          return {
            node: h('tr', {}, h('th', {scope: 'row', text: model.id}), ...cells, requests, errors),
            cells,
            requests,
            errors
          };
        },
        (row, model) => {
          const values = LATENCIES.flatMap(([key]) => QUANTILES.map((quantile) => model[key]?.[quantile]));
          row.cells.forEach((cell, i) => setText(cell, format.latency(values[i])));
          setText(row.requests, format.count(model.requests));
          setText(row.errors, format.count(model.errors));
          row.errors.classList.toggle('bad', model.errors > 0);
        });
  }
}

export function createOverview() {
  const tiles = {
    tokens: tile('Tokens per second'),
    requests: tile('Requests per second'),
    running: tile('Running'),
    memory: tile('Memory in use')
  };
  const tokens = new TimeSeries({title: 'Tokens per second', format: format.rate});
  const requests = new TimeSeries({title: 'Requests per second', format: format.rate});
  const charts =
      h('div', {class: 'two'}, h('section', {class: 'panel'}, tokens.root),
        h('section', {class: 'panel'}, requests.root));
  const memory = new MemoryPanel();
  const latencies = new LatencyPanel();
  const missing = note('');
  const steps = firstSteps();
  const row = h('div', {class: 'tiles'}, ...Object.values(tiles).map(({root}) => root));
  const root = h('div', {class: 'view'}, steps, missing, row, charts, memory.root, latencies.root);

  function update() {
    setHidden(steps, !isEmpty());
    const stats = state.stats;
    const error = state.statsError;
    const gone = error !== null && stats === null;
    setHidden(missing, !gone);
    if (gone) setText(missing, sentenceFor(error, 'live numbers (/stats)'));
    for (const part of [row, charts, latencies.root]) setHidden(part, gone && error.status === 404);
    memory.update();
    if (stats === null) return;
    setText(tiles.tokens.value, format.rate(stats.tokens_per_second));
    setText(tiles.tokens.more, `${format.rate(stats.prompt_tokens_per_second)} prompt tokens/s`);
    setText(tiles.requests.value, format.rate(stats.requests_per_second));
    setText(tiles.requests.more, `${format.count(stats.total_requests)} in ${format.span(stats.uptime)}`);
    setText(tiles.running.value, format.count(stats.running));
    setText(tiles.running.more, `${format.count(stats.waiting)} waiting`);
    setText(tiles.memory.value, format.percent(stats.memory?.used / stats.memory?.budget));
    setText(tiles.memory.more, `of ${format.bytes(stats.memory?.budget)}`);
    tokens.set(state.history.map(({at, tokens: value}) => ({at, value})));
    requests.set(state.history.map(({at, requests: value}) => ({at, value})));
    latencies.update();
  }

  listen('stats', update);
  listen('models', update);
  return {root, show: update};
}
