// Experiments: the A/B tests, one of them in full, and shadow traffic.
import {get} from './api.js';
import {h, icon, note, panel, setClass, setHidden, setText, syncRows} from './dom.js';
import {ExperimentDetail, modelOf, TEST_STATES} from './experiment_detail.js';
import {openExperimentForm} from './experiment_form.js';
import * as format from './format.js';
import {Poller} from './poller.js';
import {createShadow} from './shadow.js';
import {sentenceFor} from './store.js';

const hashOf = (name) => `#/experiments/${encodeURIComponent(name)}`;

function testRow(test) {
  const badge = h('span');
  const verdict = h('p', {class: 'sub'});
  const arms = h('ul', {class: 'arms'});
  const numbers = h('span', {class: 'num sub'});
  const node =
      h('li', {class: 'test', data: {test: test.name}},
        h('div', {class: 'line'}, h('a', {class: 'name', href: hashOf(test.name), text: test.name}), badge, numbers),
        arms, verdict);
  return {node, badge, verdict, arms, numbers};
}

function updateRow(row, test) {
  setText(row.badge, test.promoted ? `promoted ${test.promoted}` : test.state);
  setClass(row.badge, `badge ${TEST_STATES[test.state] ?? 'quiet'}`);
  setText(row.verdict, test.verdict || 'Nothing is known yet.');
  const requests = test.arms.reduce((sum, arm) => sum + (arm.requests ?? 0), 0);
  setText(row.numbers, `${format.plural(requests, 'request')} in ${format.span(test.ran_seconds)}`);
  syncRows(
      row.arms, test.arms, (arm) => arm.name,
      (arm) => {
        const [fill, share, name] = [h('i'), h('span', {class: 'num'}), h('span', {class: 'name'})];
        return {
          node:
              h('li', {}, h('strong', {class: 'letter', text: arm.name}), name,
                h('span', {class: 'meter', 'aria-hidden': 'true'}, fill), share),
          fill,
          share,
          name
        };
      },
      (parts, arm) => {
        parts.fill.style.width = `${Math.round((arm.share ?? 0) * 100)}%`;
        setText(parts.name, modelOf(arm) + (arm.stopped ? ' (stopped)' : ''));
        setText(parts.share, format.percent(arm.share));
      });
}

export function createExperiments() {
  const tests = h('ul', {class: 'tests'});
  const empty =
      note('There is no A/B test yet. One answers, with your own traffic, whether another model or setting is better.');
  const problem = note('');
  for (const part of [empty, problem]) part.hidden = true;
  const list = panel('A/B tests', problem, empty, tests);
  const add =
      h('button', {
        type: 'button',
        class: 'primary',
        hidden: true,
        on: {
          click: () => openExperimentForm((name) => {
            location.hash = hashOf(name);
          })
        }
      },
        icon('plus'), 'New test');
  list.actions.append(add);

  async function read() {
    let error = null;
    let data = [];
    try {
      data = (await get('/admin/ab-tests')).data;
    } catch (caught) {
      error = caught;
    }
    setHidden(problem, error === null);
    setHidden(add, error !== null);
    setHidden(tests, error !== null);
    setHidden(empty, error !== null || data.length > 0);
    if (error !== null) {
      setText(problem, sentenceFor(error, 'management of A/B tests (/admin/ab-tests)'));
      throw error;
    }
    syncRows(tests, data, (test) => test.name, testRow, updateRow);
  }

  const poller = new Poller(read, 2);
  const shadow = createShadow();
  const detail = new ExperimentDetail(() => {
    location.hash = '#/experiments';
  });
  const overview = h('div', {class: 'view'}, list.root, shadow.root);
  const root = h('div', {class: 'view'}, overview, detail.root);
  return {
    root,
    show: (name) => {
      setHidden(overview, name !== '');
      setHidden(detail.root, name === '');
      if (name === '') {
        detail.hide();
        poller.start();
        shadow.poller.start();
      } else {
        poller.stop();
        shadow.poller.stop();
        detail.show(name);
      }
    },
    hide: () => {
      poller.stop();
      shadow.poller.stop();
      detail.hide();
    },
  };
}
