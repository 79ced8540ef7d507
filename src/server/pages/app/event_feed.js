// What happens to the models, live from /admin/events, while the page is seen; told in sentences.
//
// The stream says that a model left memory and not why; the counters of /admin/models say why and not when. Where a
// counter rose, its reason is given to the departure that came since the counters were seen last, or comes within a
// moment.
import {stream} from './api.js';
import {h, setText, syncRows} from './dom.js';
import * as format from './format.js';
import {onKeys} from './keys.js';
import {listen, refreshModels, state} from './store.js';

const KEPT = 100;
const MOMENT = 2000;  // ms
const REASONS = {
  asked: 'unloaded as asked',
  idle: 'left memory: its keep-alive ended',
  room: 'evicted to make room for another model',
  failed: 'left memory: it failed',
};

const events = [];  // the youngest first
const listeners = new Set();
const progress = new Map();  // model -> {stage, bytes_done, bytes_total}
let lastId = '0';
let abort = null;
let wait = 1;
let timer = null;
let unloads = null;       // model -> counters as they were seen last
let countedAt = 0;        // when that was
const early = new Map();  // model -> {reason, at}: the counter was seen before the event
let live = false;

export const progressOf = (model) => progress.get(model) ?? null;

function tell() {
  for (const listener of listeners) listener();
}

function sentenceOf({event, data, reason}) {
  switch (event) {
    case 'state':
      if (data.state === 'ready') return {text: 'is ready', kind: 'good'};
      if (data.state === 'failed') return {text: data.failure ? `failed: ${data.failure}` : 'failed', kind: 'bad'};
      if (data.state === 'loading') return {text: 'is loading', kind: 'info'};
      if (data.state === 'sleeping') return {text: 'sleeps in the host\'s memory', kind: 'quiet'};
      if (data.state === 'draining') return {text: 'ends its requests, then leaves memory', kind: 'warn'};
      return {text: reason ? REASONS[reason] : 'left memory', kind: reason === 'room' ? 'warn' : 'quiet'};
    case 'registered':
      return {text: 'was registered', kind: 'good'};
    case 'updated':
      return {text: 'was changed', kind: 'quiet'};
    case 'removed':
      return {text: 'was removed', kind: 'quiet'};
    case 'switched':
      return {text: data.version ? `now means version ${data.version}` : 'follows its policy again', kind: 'info'};
    case 'alias':
      return {text: data.target ? `is now an alias of ${data.target}` : 'is no alias any more', kind: 'info'};
    default:
      return {text: event, kind: 'quiet'};
  }
}

function departureReason(event, {model, state: to}) {
  if (event !== 'state' || to !== 'unloaded') return null;
  const known = early.get(model);
  early.delete(model);
  return known && performance.now() - known.at < MOMENT ? known.reason : null;
}

function take({id, event, data: text}) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    return;
  }
  if (id !== null) lastId = id;
  if (event === 'progress') {
    progress.set(data.model, data);
  } else {
    if (event === 'state' && data.state !== 'loading') progress.delete(data.model);
    events.unshift({id, event, data, reason: departureReason(event, data), at: performance.now()});
    events.length = Math.min(events.length, KEPT);
    refreshModels();
  }
  tell();
}

function findReasons() {
  if (state.modelsError || state.models === null) return;
  const seen = new Map(state.models.map((model) => [model.id, model.unloads ?? {}]));
  for (const [id, counters] of unloads === null ? [] : seen) {
    const before = unloads.get(id);
    const reason = before && Object.keys(counters).find((name) => counters[name] > (before[name] ?? 0));
    if (!reason) continue;
    const left = events.find(
        ({event, data, at}) =>
            event === 'state' && data.model === id && data.state === 'unloaded' && at > countedAt - MOMENT);
    if (left) {
      left.reason ??= reason;
    } else {
      early.set(id, {reason, at: performance.now()});
    }
  }
  unloads = seen;
  countedAt = performance.now();
  tell();
}

async function follow() {
  abort = new AbortController();
  const {signal} = abort;
  try {
    const {events: incoming} =
        await stream('GET', `/admin/events?after=${encodeURIComponent(lastId)}`, undefined, {signal});
    wait = 1;
    live = true;
    tell();
    for await (const event of incoming) take(event);
    throw new Error('ended');
  } catch (error) {
    if (signal.aborted) return;
    live = false;
    tell();
    // Without a key, or where there are no events, it is tried again when the keys change or a minute has passed.
    wait = [401, 403, 404].includes(error.status) ? 60 : Math.min(wait * 2, 30);
    timer = setTimeout(resume, wait * 1000);
  }
}

// A stream holds one of the browser's few connections: a page that nobody sees has none.
function resume() {
  clearTimeout(timer);
  abort?.abort();
  live = false;
  if (!document.hidden) follow();
}

export function startEvents() {
  document.addEventListener('visibilitychange', resume);
  onKeys(resume);
  listen('models', findReasons);
  resume();
}

export function createEventList() {
  const rows = h('ol', {class: 'events', tabindex: 0, 'aria-label': 'Events of models'});
  const status = h('span', {class: 'live'});
  const empty = h('p', {class: 'note', text: 'Nothing has happened to a model since the server started.'});
  function update() {
    setText(status, live ? 'live' : 'not connected');
    status.classList.toggle('on', live);
    empty.hidden = events.length > 0;
    rows.hidden = events.length === 0;
    syncRows(
        rows, events, (item) => item,
        (item) => {
          const text = h('span', {class: 'what'});
          const dot = h('i');
          const node =
              h('li', {}, h('time', {class: 'num', text: format.clock(item.data.time)}), dot,
                h('p', {}, h('strong', {text: item.data.model}), ' ', text));
          return {node, text, dot};
        },
        (row, item) => {
          const {text, kind} = sentenceOf(item);
          row.dot.className = kind;
          setText(row.text, text);
        });
  }
  listeners.add(update);
  update();
  return {status, root: h('div', {}, rows, empty)};
}

export function onEvents(listener) { listeners.add(listener); }
