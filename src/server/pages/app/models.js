// Models: what there is, what is in memory, and what an operator does about it.
import {del, modelPath, post, put} from './api.js';
import {act, askToConfirm, toast} from './dialogs.js';
import {h, icon, iconButton, note, panel, setClass, setHidden, setText, syncRows} from './dom.js';
import {createEventList, onEvents, progressOf} from './event_feed.js';
import * as format from './format.js';
import {openKeepAliveForm, openRegisterForm} from './model_forms.js';
import {listen, refreshModels, sentenceFor, state, statsOf} from './store.js';

const COLUMNS = [
  ['Model'], ['State'], ['Memory', 'num'], ['Running', 'num'], ['KV cache', 'num'], ['Cache hits', 'num'],
  ['Last used', 'num'], ['Keep-alive', 'num'], ['', 'actions']
];

const STATES = {
  ready: 'good',
  loading: 'info',
  draining: 'warn',
  sleeping: 'quiet',
  failed: 'bad',
  unloaded: 'quiet'
};
const inMemory = (model) => ['ready', 'loading', 'draining'].includes(model.state);

async function change(button, work, done) {
  await act(button, work, done);
  refreshModels();
}

function askToRemove(model) {
  askToConfirm({
    title: `Remove ${model.id}?`,
    text: 'It leaves memory once its requests have ended, and the registry forgets it. Its files stay.',
    submit: 'Remove',
    onSubmit: async () => {
      await del(modelPath(model.id));
      toast(`${model.id} is removed.`);
      refreshModels();
    },
  });
}

function keepAliveText(model) {
  if (model.pinned) return 'pinned';
  if (model.keep_alive !== null && model.keep_alive < 0) return 'for ever';
  if (model.state !== 'ready') return format.NONE;
  if (model.keep_alive_left !== null) return format.span(model.keep_alive_left);
  return model.leases > 0 ? 'in use' : 'no limit';
}

function actionButton(label, click) { return h('button', {type: 'button', class: 'small', text: label, on: {click}}); }

class ModelRow {
  constructor(model) {
    this.model = model;
    this.name = h('span', {class: 'name'});
    this.tags = h('span', {class: 'tags'});
    this.source = h('span', {class: 'sub mono'});
    this.badge = h('span');
    this.bar = h('progress', {max: 1, 'aria-label': 'Load progress'});
    this.stage = h('span', {class: 'sub'});
    this.cells = COLUMNS.slice(2, -1).map(([label]) => h('td', {class: 'num', data: {label}}));
    this.makeButtons();
    this.node =
        h('tr', {data: {model: model.id}},
          h('th', {scope: 'row'}, h('span', {class: 'line'}, this.name, this.tags), this.source),
          h('td', {class: 'state', data: {label: 'State'}}, this.badge, this.bar, this.stage), ...this.cells,
          h('td', {class: 'actions'}, this.load, this.unload, this.pin, this.keep, this.activate, this.remove));
  }

  makeButtons() {
    const id = this.model.id;
    const keepFor = async (seconds) => {
      await put(modelPath(id, '/keep-alive'), {keep_alive: seconds});
      refreshModels();
    };
    this.load = actionButton(
        'Load', () => change(this.load, () => post(modelPath(id, '/load')), `${id} is on its way into memory.`));
    this.unload = actionButton(
        'Unload',
        () => change(
            this.unload, () => post(modelPath(id, '/unload')), `${id} leaves memory once its requests have ended.`));
    this.pin = iconButton(
        'pin', 'Pin', () => change(this.pin, () => post(modelPath(id, this.model.pinned ? '/unpin' : '/pin'))));
    this.keep = iconButton('clock', `Keep-alive of ${id}`, () => openKeepAliveForm(this.model, keepFor));
    this.activate = iconButton(
        'star', `Make ${id} the active version`,
        () => change(
            this.activate, () => put(modelPath(this.model.name, '/active-version'), {version: this.model.version}),
            `${this.model.name} will mean version ${this.model.version} once that is loaded.`));
    this.remove = iconButton('trash', `Remove ${id}`, () => askToRemove(this.model));
  }

  update(model) {
    this.model = model;
    setText(this.name, model.id);
    const tags = [
      ...(model.active ? [] : ['not active']), ...(model.origin === 'config' ? ['from the configuration'] : []),
      ...model.aliases.map((alias) => `= ${alias}`)
    ];
    setText(this.tags, tags.join(' · '));
    setText(this.source, model.source);
    this.updateState(model);
    this.updateNumbers(model, statsOf(model.id));
    const loaded = inMemory(model);
    const asleep = model.state === 'sleeping';
    setText(this.load, asleep ? 'Wake' : 'Load');
    setHidden(this.load, loaded);
    setHidden(this.unload, !loaded && !asleep);
    const pin = model.pinned ? `Unpin ${model.id}` : `Pin ${model.id}: never unload it to make room`;
    if (this.pin.title !== pin) {
      this.pin.title = pin;
      this.pin.setAttribute('aria-label', pin);
      this.pin.setAttribute('aria-pressed', String(model.pinned));
    }
    setHidden(this.activate, model.active);
    setHidden(this.remove, model.origin === 'config');
  }

  updateState(model) {
    setText(this.badge, model.removing ? 'removing' : model.state);
    setClass(this.badge, `badge ${STATES[model.state] ?? 'quiet'}`);
    const loading = model.state === 'loading';
    const progress = progressOf(model.id) ?? model.progress;
    setHidden(this.bar, !loading);
    if (loading && progress?.bytes_total > 0) {
      this.bar.value = progress.bytes_done / progress.bytes_total;
    } else {
      this.bar.removeAttribute('value');
    }
    const stage = loading ? progress?.stage ?? '' : model.state === 'failed' ? model.failure?.message ?? '' : '';
    setText(this.stage, model.queue_place > 0 ? `place ${model.queue_place} in the queue` : stage);
  }

  updateNumbers(model, stats) {
    const [memory, running, kv, hits, used, keep] = this.cells;
    const bytes = model.state === 'sleeping' ? model.sleep_bytes : model.memory_bytes;
    setText(memory, bytes > 0 ? format.bytes(bytes) : format.NONE);
    const waiting = Math.max(model.waiting, stats?.waiting ?? 0);
    setText(running, `${format.count(stats?.running ?? model.leases)}${waiting > 0 ? ` + ${waiting} waiting` : ''}`);
    setText(kv, inMemory(model) ? format.percent(stats?.kv_usage) : format.NONE);
    setText(hits, format.percent(stats?.cache_hit_rate));
    setText(used, format.ago(model.last_used));
    setText(keep, keepAliveText(model));
  }
}

export function createModels() {
  const rows = h('tbody');
  const table =
      h('table', {class: 'data cards models'},
        h('thead', {},
          h('tr', {}, ...COLUMNS.map(([label, kind]) => h('th', {scope: 'col', class: kind ?? '', text: label})))),
        rows);
  const empty =
      h('div', {class: 'empty', hidden: true}, h('p', {text: 'No model is registered yet.'}),
        h('p', {class: 'hint', text: 'Its source is a directory below --model-roots, or a hub id such as ORG/NAME.'}));
  const problem = note('');
  const list = panel('Models', problem, empty, h('div', {class: 'scroll'}, table));
  const register =
      h('button', {type: 'button', class: 'primary', on: {click: openRegisterForm}}, icon('plus'), 'Register a model');
  list.actions.append(register);
  const feed = createEventList();
  const eventPanel = panel('Events', feed.root);
  eventPanel.actions.append(feed.status);
  const root = h('div', {class: 'view'}, list.root, eventPanel.root);

  function update() {
    const error = state.modelsError;
    const shown = state.models !== null && error?.status !== 401 && error?.status !== 403;
    setHidden(problem, error === null);
    if (error !== null) setText(problem, sentenceFor(error, 'list of models (/admin/models)'));
    setHidden(table, !shown || state.models.length === 0);
    setHidden(empty, !shown || state.models.length > 0);
    setHidden(register, !shown);
    setHidden(eventPanel.root, !shown);
    if (!shown) return;
    syncRows(
        rows, state.models, (model) => model.id, (model) => new ModelRow(model), (row, model) => row.update(model));
  }

  listen('models', update);
  listen('stats', update);
  onEvents(update);
  return {
    root,
    show: (detail) => {
      update();
      if (detail !== 'new') return;
      location.replace('#/models');
      openRegisterForm();
    },
  };
}
