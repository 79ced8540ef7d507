// Routing: the rules in the order in which they are asked, what happens where none matches, and an explanation.
import {del, get, put} from './api.js';
import {act, askToConfirm, toast} from './dialogs.js';
import {h, icon, note, panel, setHidden, setText, syncRows} from './dom.js';
import {createExplain} from './explain.js';
import * as format from './format.js';
import {Poller} from './poller.js';
import {openOptionsForm, optionRows} from './routing_options.js';
import {openRuleForm, rulePayload, targetOf} from './rule_form.js';
import {sentenceFor, state} from './store.js';

const rulePath = (rule) => `/admin/routing-rules/${encodeURIComponent(rule.name)}`;
const testNames = () => (state.stats?.ab_tests ?? []).map((test) => test.name);

function targetText(rule) {
  switch (targetOf(rule)) {
    case 'models':
      return rule.models.join(' → ');
    case 'ab_test':
      return `A/B test ${rule.ab_test}`;
    case 'refusal':
      return `refusal ${rule.refusal.status}: ${rule.refusal.message}`;
    default:
      return rule.model_name ?? format.NONE;
  }
}

class RuleRow {
  constructor(rule, refresh) {
    this.rule = rule;
    this.name = h('span', {class: 'name'});
    this.tags = h('span', {class: 'tags'});
    this.condition = h('code', {class: 'condition'});
    this.target = h('td', {data: {label: 'Sends it to'}});
    this.priority = h('td', {class: 'num', data: {label: 'Priority'}});
    this.hits = h('td', {class: 'num', data: {label: 'Hits'}});
    this.toggle =
        h('input', {type: 'checkbox', class: 'switch', role: 'switch', 'aria-label': `Rule ${rule.name} is enabled`});
    this.toggle.addEventListener('change', async () => {
      const enabled = this.toggle.checked;
      await act(this.toggle, () => put(rulePath(this.rule), {...rulePayload(this.rule), enabled}));
      refresh();
    });
    this.edit = h('button', {
      type: 'button',
      class: 'small',
      text: 'Edit',
      on: {click: () => openRuleForm(this.rule, testNames(), refresh)}
    });
    this.remove =
        h('button',
          {type: 'button', class: 'small quiet-danger', text: 'Delete', on: {click: () => this.askToRemove(refresh)}});
    this.node =
        h('tr', {data: {rule: rule.name}}, h('td', {class: 'toggle', data: {label: 'Enabled'}}, this.toggle),
          h('th', {scope: 'row'}, h('span', {class: 'line'}, this.name, this.tags), this.condition), this.target,
          this.priority, this.hits, h('td', {class: 'actions'}, this.edit, this.remove));
  }

  askToRemove(refresh) {
    askToConfirm({
      title: `Delete rule ${this.rule.name}?`,
      text: 'Requests that it would have taken go to the rules after it.',
      submit: 'Delete',
      onSubmit: async () => {
        await del(rulePath(this.rule));
        toast(`Rule ${this.rule.name} is deleted.`);
        refresh();
      },
    });
  }

  update(rule) {
    this.rule = rule;
    const fixed = rule.source === 'config';
    setText(this.name, rule.name);
    setText(this.tags, [
      ...(fixed ? ['from the configuration'] : []), ...(rule.applies_to === 'all' ? ['also named models'] : [])
    ].join(' · '));
    setText(this.condition, rule.condition);
    setText(this.target, targetText(rule));
    setText(this.priority, rule.priority);
    setText(this.hits, format.count(rule.hits));
    if (!this.toggle.disabled || fixed) this.toggle.checked = rule.enabled;
    this.toggle.disabled = fixed;
    this.node.classList.toggle('off', !rule.enabled);
    setHidden(this.edit, fixed);
    setHidden(this.remove, fixed);
  }
}

function createRules() {
  const rows = h('tbody');
  const head = [['On'], ['Rule'], ['Sends it to'], ['Priority', 'num'], ['Hits', 'num'], ['', 'actions']];
  const table =
      h('table', {class: 'data cards rules'},
        h('thead', {},
          h('tr', {}, ...head.map(([label, kind]) => h('th', {scope: 'col', class: kind ?? '', text: label})))),
        rows);
  const empty = note('There is no rule yet: every request goes where it says, or where the options below say.');
  const problem = note('');
  const parts =
      panel('Rules, in the order in which they are asked', problem, empty, h('div', {class: 'scroll'}, table));
  const add =
      h('button', {type: 'button', class: 'primary', on: {click: () => openRuleForm(null, testNames(), refresh)}},
        icon('plus'), 'Add a rule');
  parts.actions.append(add);
  for (const part of [table, empty, problem, add]) part.hidden = true;

  async function read() {
    let error = null;
    let rules = [];
    try {
      rules = (await get('/admin/routing-rules')).data;
    } catch (caught) {
      error = caught;
    }
    setHidden(problem, error === null);
    setHidden(add, error !== null);
    setHidden(empty, error !== null || rules.length > 0);
    setHidden(table, error !== null || rules.length === 0);
    if (error !== null) {
      setText(problem, sentenceFor(error, 'management of routing rules (/admin/routing-rules)'));
      throw error;
    }
    syncRows(rows, rules, (rule) => rule.name, (rule) => new RuleRow(rule, refresh), (row, rule) => row.update(rule));
  }
  const poller = new Poller(read, 2);
  const refresh = () => poller.wake();
  return {root: parts.root, poller};
}

function createOptions() {
  const list = h('dl', {class: 'facts'});
  const problem = note('');
  problem.hidden = true;
  const parts = panel('Where no rule matches', problem, list);
  let options = null;
  const edit =
      h('button',
        {type: 'button', text: 'Edit', hidden: true, on: {click: () => openOptionsForm(options, () => poller.wake())}});
  const fixed = h('span', {class: 'tags', text: 'from the configuration', hidden: true});
  parts.actions.append(fixed, edit);

  async function read() {
    let error = null;
    try {
      options = await get('/admin/routing');
    } catch (caught) {
      error = caught;
    }
    setHidden(problem, error === null);
    setHidden(edit, error !== null || options.source === 'config');
    setHidden(fixed, error !== null || options.source !== 'config');
    setHidden(list, error !== null);
    if (error !== null) {
      setText(problem, sentenceFor(error, 'routing options (/admin/routing)'));
      throw error;
    }
    syncRows(list, optionRows(options), ([label]) => label, ([label]) => {
      const value = h('dd');
      return {node: h('div', {}, h('dt', {text: label}), value), value};
    }, (row, [, value]) => setText(row.value, value));
  }
  const poller = new Poller(read, 10);
  return {root: parts.root, poller};
}

export function createRouting() {
  const rules = createRules();
  const options = createOptions();
  const root = h('div', {class: 'view'}, rules.root, h('div', {class: 'two'}, options.root, createExplain()));
  return {
    root,
    show: () => [rules, options].forEach(({poller}) => poller.start()),
    hide: () => [rules, options].forEach(({poller}) => poller.stop()),
  };
}
