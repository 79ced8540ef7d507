// What the server said last: its numbers, its models, and whether it answers at all. Views listen to a topic.
import {get} from './api.js';
import {Poller} from './poller.js';

const HISTORY_SECONDS = 300;

export const state = {
  connection: 'connecting',  // ok, starting, locked, lost
  stats: null,
  statsError: null,
  history: [],  // {at, tokens, requests} of the last five minutes, at in seconds
  models: null,
  memory: null,
  modelsError: null,
};

const listeners = new Map();  // topic -> Set

export function listen(topic, listener) {
  if (!listeners.has(topic)) listeners.set(topic, new Set());
  listeners.get(topic).add(listener);
}

function tell(topic) {
  for (const listener of listeners.get(topic) ?? []) listener();
}

function connectionOf(error) {
  if (error === null || error.status === 404 || error.status === 403) return 'ok';
  if (error.status === 401) return 'locked';
  return error.status === 503 ? 'starting' : error.status === 0 ? 'lost' : 'ok';
}

function setConnection(value) {
  if (state.connection === value) return;
  state.connection = value;
  tell('connection');
}

function remember(stats) {
  const at = Date.now() / 1000;
  state.history.push({at, tokens: stats.tokens_per_second ?? 0, requests: stats.requests_per_second ?? 0});
  while (state.history.length > 0 && state.history[0].at < at - HISTORY_SECONDS - 2) state.history.shift();
}

async function readStats() {
  try {
    state.stats = await get('/stats');
    state.statsError = null;
    remember(state.stats);
  } catch (error) {
    state.statsError = error;
  }
  setConnection(connectionOf(state.statsError));
  tell('stats');
  if (state.statsError) throw state.statsError;
}

async function readModels() {
  try {
    const list = await get('/admin/models');
    state.models = list.data;
    state.memory = list.memory;
    state.modelsError = null;
  } catch (error) {
    state.modelsError = error;
  }
  if (state.statsError?.status === 404) setConnection(connectionOf(state.modelsError));
  tell('models');
  if (state.modelsError) throw state.modelsError;
}

const statsPoller = new Poller(readStats, 1);
const modelsPoller = new Poller(readModels, 2);

export function startStore() {
  statsPoller.start();
  modelsPoller.start();
}

export const refreshModels = () => modelsPoller.wake();
export const statsOf = (id) => state.stats?.models?.find((model) => model.id === id) ?? null;

// Names that a request may ask for: of the active version the name, else the id; and the aliases.
export function modelNames() {
  const names = new Set();
  for (const model of state.models ?? []) {
    names.add(model.active ? model.name : model.id);
    for (const alias of model.aliases ?? []) names.add(alias);
  }
  for (const model of state.models ? [] : state.stats?.models ?? []) names.add(model.id);
  return [...names].sort();
}

// What a first question had best go to: a model that is in memory.
export function readyName() {
  const ready = (state.models ?? []).find((model) => model.state === 'ready');
  return ready ? (ready.active ? ready.name : ready.id) : 'auto';
}

export const isEmpty = () => state.models !== null && state.models.length === 0;

// The sentence for a panel whose route gave an error.
export function sentenceFor(error, what) {
  if (error.status === 404) return `This server has no ${what}; a newer one may.`;
  if (error.status === 401) return `The ${what} needs a key; the key button in the corner takes it.`;
  if (error.status === 503) return 'The server is still starting.';
  if (error.status === 0) return 'The server does not answer; trying again.';
  return error.message;
}
