// The page: which view is shown, the theme, the keys, and whether the server answers.
import {setHidden, setText} from './dom.js';
import {startEvents} from './event_feed.js';
import {createExperiments} from './experiments.js';
import {askForKeys, isLocked, onKeys} from './keys.js';
import {createModels} from './models.js';
import {createOverview} from './overview.js';
import {createPlayground} from './playground.js';
import {createRouting} from './routing.js';
import {listen, startStore, state} from './store.js';

const VIEWS = {
  overview: createOverview,
  models: createModels,
  routing: createRouting,
  experiments: createExperiments,
  playground: createPlayground,
};
const TITLES = {
  overview: 'Overview',
  models: 'Models',
  routing: 'Routing',
  experiments: 'Experiments',
  playground: 'Playground'
};
const CONNECTIONS = {
  connecting: ['Connecting', 'quiet'],
  ok: ['Connected', 'good'],
  starting: ['Starting', 'warn'],
  locked: ['Needs a key', 'warn'],
  lost: ['Disconnected', 'bad'],
};

const views = {};
let current = null;

// "#/experiments/name" to ["experiments", "name"]
function readHash() {
  const [, name = '', ...rest] = location.hash.split('/');
  let detail = '';
  try {
    detail = decodeURIComponent(rest.join('/'));
  } catch {
    // A hand-made address with a broken escape: the list it is.
  }
  return name in VIEWS ? [name, detail] : ['overview', ''];
}

function showView() {
  const [name, detail] = readHash();
  if (current && current !== name) {
    views[current].hide?.();
    views[current].root.hidden = true;
  }
  if (!views[name]) {
    views[name] = VIEWS[name]();
    document.getElementById('content').append(views[name].root);
  }
  views[name].root.hidden = false;
  if (current !== name) window.scrollTo(0, 0);
  current = name;
  views[name].show?.(detail);
  document.title = name === 'overview' ? 'Inferneo' : `${TITLES[name]} · Inferneo`;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.dataset.view === name) {
      link.setAttribute('aria-current', 'page');
    } else {
      link.removeAttribute('aria-current');
    }
  }
}

function systemTheme() { return window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'; }

function toggleTheme() {
  const root = document.documentElement;
  const theme = (root.dataset.theme ?? systemTheme()) === 'dark' ? 'light' : 'dark';
  root.dataset.theme = theme;
  try {
    // What the system wants anyway is followed, and not kept.
    if (theme === systemTheme()) {
      localStorage.removeItem('inferneo.theme');
    } else {
      localStorage.setItem('inferneo.theme', theme);
    }
  } catch {
    // It lasts as long as the page, then.
  }
}

function showConnection() {
  const locked = isLocked('api') || isLocked('admin');
  const [text, kind] = CONNECTIONS[locked && state.connection === 'ok' ? 'locked' : state.connection];
  const node = document.getElementById('connection');
  node.dataset.kind = kind;
  setText(node.lastElementChild, text);
  setHidden(document.getElementById('lost'), state.connection !== 'lost');
}

// The address says which view is shown: a jump within the page must not change it.
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  document.getElementById('content').focus();
});
document.getElementById('theme').addEventListener('click', toggleTheme);
document.getElementById('keys').addEventListener('click', askForKeys);
window.addEventListener('hashchange', showView);
listen('connection', showConnection);
onKeys(showConnection);
showView();
startStore();
startEvents();
