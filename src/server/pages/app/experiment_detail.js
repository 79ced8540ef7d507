// One A/B test: what is known so far, its arms, and an interval per metric and arm.
import {del, get, post} from './api.js';
import {act, askToConfirm, field, openDialog, select, toast} from './dialogs.js';
import {h, note, setClass, setHidden, setText} from './dom.js';
import * as format from './format.js';
import {decisionBadge, domainOf, intervalPlot, intervalText, METRIC_NAMES, scaleLine} from './intervals.js';
import {Poller} from './poller.js';
import {sentenceFor} from './store.js';

export const TEST_STATES = {
  draft: 'quiet',
  running: 'good',
  paused: 'warn',
  stopped: 'quiet',
  promoted: 'info'
};
const testPath = (name, action = '') => `/admin/ab-tests/${encodeURIComponent(name)}${action}`;
export const modelOf = (arm) => (arm.version ? `${arm.model}:${arm.version}` : arm.model);

const HOW_TO_READ =
    'The dot is the measured difference, the bar is where the truth lies, the band is what is too small to matter. ' +
    'It may be looked at as often as you like.';
const ARM_COLUMNS = [
  'Arm', 'Model', 'Share', 'Requests', 'Failures', 'First token p50', 'p95', 'Between tokens', 'Answer tokens',
  'Feedback'
];

function failureText({requests, failures}) {
  return requests > 0 ? `${format.count(failures)} (${format.percent(failures / requests, 1)})`
                      : format.count(failures);
}

function feedbackText(feedback) {
  return feedback?.count > 0 ? `${format.percent(feedback.mean)} of ${format.count(feedback.count)}` : format.NONE;
}

function armRow(arm, result) {
  const perRequest = result && result.requests > 0 ? result.completion_tokens / result.requests : NaN;
  const values = [
    format.percent(arm.share), format.count(result?.requests ?? arm.requests), failureText(result ?? arm),
    format.latency(result?.time_to_first_token?.p50), format.latency(result?.time_to_first_token?.p95),
    format.latency(result?.inter_token?.p50), format.rate(perRequest), feedbackText(result?.feedback)
  ];
  const sampling = Object.entries(arm.sampling ?? {}).map(([key, value]) => `${key} ${value}`).join(', ');
  return h(
      'tr', {},
      h('th', {scope: 'row'}, h('strong', {class: 'letter', text: arm.name}),
        arm.stopped ? h('span', {class: 'badge bad', text: 'stopped', title: arm.stopped}) : null),
      h('td', {data: {label: 'Model'}}, modelOf(arm), sampling ? h('span', {class: 'sub', text: sampling}) : null),
      ...values.map((text, i) => h('td', {class: 'num', data: {label: ARM_COLUMNS[i + 2]}, text})));
}

function metricBlock(metric, rows, smallest) {
  const domain = domainOf(rows, smallest);
  const lines = rows.map((row) => {
    const badge = decisionBadge(row);
    const missing = typeof row.remaining === 'number' ? `about ${format.count(row.remaining)} more requests` : '';
    return h(
        'div', {class: 'interval-row'}, h('span', {class: 'letter', text: row.arm}),
        intervalPlot(row, smallest, domain), h('span', {class: 'num effect-text', text: intervalText(row)}),
        h('span', {class: `badge ${badge.kind}`, text: badge.text, title: row.sentence ?? ''}),
        h('span', {class: 'sub remaining', text: missing}));
  });
  const known = rows.some((row) => row.decision !== 'too_early');
  return h(
      'div', {class: 'metric'},
      h('h4', {}, METRIC_NAMES[metric] ?? metric,
        rows[0].primary ? h('span', {class: 'badge info', text: 'decides'}) : null),
      ...lines, known ? h('div', {class: 'interval-row'}, h('span'), scaleLine(rows[0], domain)) : null);
}

function metricBlocks(test) {
  const byMetric = new Map();
  for (const row of test.results?.metrics ?? []) byMetric.set(row.metric, [...(byMetric.get(row.metric) ?? []), row]);
  return [...byMetric].map(
      ([metric, rows]) =>
          metricBlock(metric, rows, (rows[0].kind === 'ratio' ? test.minimum_effect : test.minimum_difference) ?? 0.1));
}

function facts(test) {
  const effects = `${format.percent(test.minimum_effect)} of latencies and lengths`;
  const rows = [
    ['Ran for', format.span(test.ran_seconds)], ['The same arm for the same', test.sticky_by],
    ['False alarms', `at most ${format.percent(test.false_alarm_rate)}`],
    ['Worth knowing', `${effects}, ${Number((test.minimum_difference * 100).toFixed(1))} points of rates`]
  ];
  if (test.ramp?.length > 0)
    rows.push([
      'Ramp',
      test.ramp.map((step) => `${format.percent(step.share)} from ${format.span(step.after_seconds)} on`).join(', ')
    ]);
  const rails =
      Object.entries(test.guardrails ?? {}).filter(([key, value]) => value !== null && key.startsWith('max_'));
  if (rails.length > 0)
    rows.push(['Guardrails', rails.map(([key, value]) => `${key.replaceAll('_', ' ')} ${value}`).join(', ')]);
  return h(
      'dl', {class: 'facts columns'},
      ...rows.map(([label, value]) => h('div', {}, h('dt', {text: label}), h('dd', {text: value}))));
}

export class ExperimentDetail {
  constructor(back) {
    this.back = back;
    this.name = null;
    this.test = null;
    this.title = h('h2', {tabindex: -1});
    this.badge = h('span', {class: 'badge'});
    this.sentence = h('p', {class: 'verdict', 'aria-live': 'polite'});
    this.problem = note('');
    this.arms = h('tbody');
    this.metrics = h('div', {class: 'metrics'});
    this.facts = h('div');
    this.drawn = '';
    this.buttons = {
      start: this.verb('Start', 'start', 'primary'),
      pause: this.verb('Pause', 'pause'),
      stop: h('button', {type: 'button', text: 'Stop', on: {click: () => this.askToStop()}}),
      promote: h('button', {type: 'button', text: 'Promote', on: {click: () => this.askToPromote()}}),
      remove:
          h('button', {type: 'button', class: 'quiet-danger', text: 'Delete', on: {click: () => this.askToRemove()}}),
    };
    const table =
        h('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Arms'},
          h('table', {class: 'data cards'},
            h('thead', {},
              h('tr', {},
                ...ARM_COLUMNS.map((label, i) => h('th', {scope: 'col', class: i > 1 ? 'num' : '', text: label})))),
            this.arms));
    this.body =
        h('div', {}, this.sentence, table, h('h3', {text: 'Compared with A'}),
          h('p', {class: 'hint', text: HOW_TO_READ}), this.metrics, this.facts);
    this.root =
        h('section', {class: 'panel'},
          h('header', {class: 'panel-head'},
            h('div', {class: 'line'}, h('a', {class: 'back', href: '#/experiments', text: '← All tests'}), this.title,
              this.badge),
            h('div', {class: 'panel-actions'}, ...Object.values(this.buttons))),
          h('div', {class: 'panel-body'}, this.problem, this.body));
    this.poller = new Poller(() => this.read(), 2);
  }

  verb(label, action, kind = '') {
    const button = h('button', {type: 'button', class: kind, text: label});
    button.addEventListener('click', async () => {
      await act(button, () => post(testPath(this.name, `/${action}`)));
      this.poller.wake();
    });
    return button;
  }

  askToStop() {
    askToConfirm({
      title: `Stop ${this.name}?`,
      text: 'Its requests go where they went without it. A stopped test is not started again.',
      submit: 'Stop',
      onSubmit: async () => {
        await post(testPath(this.name, '/stop'));
        this.poller.wake();
      }
    });
  }

  askToPromote() {
    const arm = select(
        this.test.arms.map((entry) => [entry.name, `${entry.name}: ${modelOf(entry)}`]),
        this.test.results?.winner ?? this.test.arms[1]?.name);
    openDialog({
      title: `Promote an arm of ${this.name}`,
      intro: 'The test ends, and all of its requests go to this arm.',
      body: [field('Arm', arm, {param: 'arm'})],
      submit: 'Promote',
      onSubmit: async () => {
        await post(testPath(this.name, '/promote'), {arm: arm.value});
        toast(`Arm ${arm.value} of ${this.name} is promoted.`);
        this.poller.wake();
      }
    });
  }

  askToRemove() {
    askToConfirm({
      title: `Delete ${this.name}?`,
      text: 'Its numbers go with it.',
      submit: 'Delete',
      onSubmit: async () => {
        await del(testPath(this.name));
        toast(`The test ${this.name} is deleted.`);
        this.back();
      }
    });
  }

  show(name) {
    if (name !== this.name) {
      this.name = name;
      this.test = null;
      this.drawn = '';
      setText(this.title, name);
      this.body.hidden = true;
      this.problem.hidden = true;
      for (const button of Object.values(this.buttons)) button.hidden = true;
    }
    this.poller.start();
    this.title.focus();
  }

  hide() { this.poller.stop(); }

  async read() {
    try {
      this.test = await get(testPath(this.name));
    } catch (error) {
      this.body.hidden = true;
      this.problem.hidden = false;
      setText(
          this.problem,
          error.param === null && error.status === 404 ? `There is no test ${this.name}.`
                                                       : sentenceFor(error, 'A/B tests'));
      throw error;
    }
    this.problem.hidden = true;
    this.body.hidden = false;
    this.update();
  }

  update() {
    const test = this.test;
    setText(this.badge, test.promoted ? `promoted ${test.promoted}` : test.state);
    setClass(this.badge, `badge ${TEST_STATES[test.state] ?? 'quiet'}`);
    const open = ['running', 'paused'].includes(test.state);
    setHidden(this.buttons.start, !['draft', 'paused'].includes(test.state));
    setText(this.buttons.start, test.state === 'paused' ? 'Go on' : 'Start');
    setHidden(this.buttons.pause, test.state !== 'running');
    setHidden(this.buttons.stop, !open);
    setHidden(this.buttons.promote, !open);
    setHidden(this.buttons.remove, test.source === 'config');
    setText(this.sentence, test.results?.sentence || test.verdict || 'Nothing is known yet.');
    // Drawn anew only when a number changed, so that what is selected or pointed at stays.
    const drawn = JSON.stringify([test.arms, test.results]);
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      const results = new Map((test.results?.arms ?? []).map((arm) => [arm.name, arm]));
      this.arms.replaceChildren(...test.arms.map((arm) => armRow(arm, results.get(arm.name))));
      const blocks = metricBlocks(test);
      this.metrics.replaceChildren(...(blocks.length > 0 ? blocks : [note('Nothing has been compared yet.')]));
    }
    this.facts.replaceChildren(facts(test));
  }
}
