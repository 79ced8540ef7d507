// Requests to the server that this page came from, and its event streams.
import {isLocked, keyFor, lock, lockedMessage} from './keys.js';

class ApiError extends Error {
  constructor(status, message, param = null, code = null) {
    super(message);
    this.status = status;  // 0: no answer came
    this.param = param;
    this.code = code;
  }
}

const kindOf = (path) => (path.startsWith('/admin') ? 'admin' : 'api');

async function errorOf(response) {
  let message = `The server answered ${response.status}.`;
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not from Inferneo, such as a proxy's page: the status says what there is to say.
  }
  return new ApiError(response.status, error.message ?? message, error.param ?? null, error.code ?? null);
}

async function send(method, path, body, {signal, headers = {}} = {}) {
  const kind = kindOf(path);
  if (isLocked(kind)) throw new ApiError(401, lockedMessage(kind));
  const key = keyFor(kind);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: 'no-store',
      credentials: 'omit',
      referrerPolicy: 'no-referrer',
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, 'The server does not answer.');
  }
  if (response.ok) return response;
  const error = await errorOf(response);
  if (error.status === 401 && key === keyFor(kind)) lock(kind, error.message);
  throw error;
}

async function json(method, path, body, options) {
  const response = await send(method, path, body, options);
  const text = await response.text();
  return text === '' ? null : JSON.parse(text);
}

export const get = (path, options) => json('GET', path, undefined, options);
export const post = (path, body, options) => json('POST', path, body, options);
export const put = (path, body, options) => json('PUT', path, body, options);
export const del = (path, options) => json('DELETE', path, undefined, options);
export const modelPath = (id, action = '') => `/admin/models/${encodeURIComponent(id)}${action}`;

// Server-sent events of one answer: {id, event, data} each. Comments and what is not whole are passed over.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    text += value;
    const frames = text.split('\n\n');
    text = frames.pop();
    for (const frame of frames) {
      const event = {id: null, event: 'message', data: ''};
      for (const line of frame.split('\n')) {
        const colon = line.indexOf(': ');
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 2);
      }
      if (event.data !== '') yield event;
    }
  }
}

// fetch() and not EventSource: that one can send no key.
export async function stream(method, path, body, options = {}) {
  const response = await send(method, path, body, options);
  return {response, events: eventsOf(response)};
}
