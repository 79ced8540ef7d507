// The keys of this page's tab: kept in the session's storage alone, sent in the Authorization header alone.
//
// A kind of route (`api`, `admin`) whose key was refused is locked until the keys change: nothing is asked with a key
// that is known to be wrong.
import {openDialog} from './dialogs.js';
import {h} from './dom.js';

const NAMES = {
  api: 'inferneo.api-key',
  admin: 'inferneo.admin-key'
};
const locked = new Map();  // kind -> the server's message
const listeners = new Set();
let dialogIsOpen = false;
let dismissed = false;

function read(kind) {
  try {
    return sessionStorage.getItem(NAMES[kind]) ?? '';
  } catch {
    return '';
  }
}

function write(kind, key) {
  try {
    if (key) {
      sessionStorage.setItem(NAMES[kind], key);
    } else {
      sessionStorage.removeItem(NAMES[kind]);
    }
  } catch {
    // Without storage a key cannot be kept; the dialog will ask again.
  }
}

export function keyFor(kind) { return kind === 'admin' ? read('admin') || read('api') : read('api'); }

export const lockedMessage = (kind) => locked.get(kind);
export const isLocked = (kind) => locked.has(kind);

export function onKeys(listener) { listeners.add(listener); }

function tell() {
  for (const listener of listeners) listener();
}

// A route said 401. Asks once by itself; after that the button in the header asks.
export function lock(kind, message) {
  const isNew = !locked.has(kind);
  locked.set(kind, message);
  if (isNew) tell();
  if (!dismissed) askForKeys();
}

function keyField(kind, label, hint) {
  const input =
      h('input', {type: 'password', id: `key-${kind}`, autocomplete: 'off', spellcheck: 'false', value: read(kind)});
  const message = locked.get(kind) && keyFor(kind) ? 'The key was refused.' : '';
  return {
    input,
    root:
        h('div', {class: 'field'},
          h('label',
            {for: `key-${kind}`, text: label
            }),
          input, h('p', {class: 'hint', text: hint}),
          message ? h('p', {class: 'field-error', role: 'alert', text: message}) : null),
  };
}

export function askForKeys() {
  if (dialogIsOpen) return;
  dialogIsOpen = true;
  const api = keyField('api', 'API key', 'For chat and numbers.');
  const admin = keyField('admin', 'Admin key', 'For models, routing and experiments. Empty: the API key is tried.');
  const asked = locked.size > 0 ? 'This server asks for a key.' : 'Keys that this page sends to its server.';
  openDialog({
    title: 'Keys',
    intro: `${asked} They stay in this tab, and are forgotten when it closes.`,
    body: [api.root, admin.root],
    submit: 'Use these keys',
    onSubmit: () => {
      write('api', api.input.value.trim());
      write('admin', admin.input.value.trim());
      locked.clear();
      dismissed = false;
      dialogIsOpen = false;
      tell();
    },
    onClose: () => {
      dialogIsOpen = false;
      dismissed = true;
    },
  });
}
