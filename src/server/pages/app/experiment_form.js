// The form of a new A/B test: two arms, or up to eight.
import {post} from './api.js';
import {field, input, numberOf, openDialog, select, suggest, textOf, toast} from './dialogs.js';
import {h, iconButton} from './dom.js';
import {METRIC_NAMES} from './intervals.js';
import {modelNames} from './store.js';

const MAX_ARMS = 8;
const LETTERS = 'ABCDEFGH';

class ArmFields {
  constructor(remove) {
    this.model = input({required: ''});
    this.weight = input({type: 'number', min: 0, step: 'any', value: 50});
    this.temperature = input({type: 'number', min: 0, max: 2, step: 'any', placeholder: 'the request\'s'});
    this.letter = h('strong', {class: 'letter'});
    const [, names] = suggest(this.model, modelNames());
    this.remove = iconButton('close', 'Remove this arm', () => remove(this));
    this.root =
        h('div', {class: 'arm-fields'}, this.letter, field('Model', this.model, {param: 'arms'}), names,
          field('Weight', this.weight, {}), field('Temperature', this.temperature, {}), this.remove);
  }

  payload(i) {
    const arm = {name: LETTERS[i], weight: numberOf(this.weight) ?? 1};
    const [model, version] = this.model.value.trim().split(':');
    arm.model = model;
    if (version) arm.version = version;
    if (numberOf(this.temperature) !== undefined) arm.sampling = {temperature: numberOf(this.temperature)};
    return arm;
  }
}

class ArmList {
  constructor() {
    this.arms = [];
    this.rows = h('div', {class: 'arm-list'});
    this.add = h('button', {type: 'button', class: 'small', text: 'Another arm', on: {click: () => this.append()}});
    this.root =
        h('fieldset', {}, h('legend', {text: 'Arms'}),
          h('p',
            {class: 'hint', text: 'A is what is there; the others are compared with it. Shares follow the weights.'}),
          this.rows, this.add);
    this.append();
    this.append();
  }

  append() {
    this.arms.push(new ArmFields((arm) => {
      this.arms.splice(this.arms.indexOf(arm), 1);
      this.show();
    }));
    this.show();
  }

  show() {
    this.rows.replaceChildren(...this.arms.map((arm) => arm.root));
    this.arms.forEach((arm, i) => {
      arm.letter.textContent = LETTERS[i];
      arm.remove.hidden = this.arms.length <= 2;
    });
    this.add.hidden = this.arms.length >= MAX_ARMS;
  }
}

function moreFields() {
  const effect = input({type: 'number', min: 0, step: 'any', value: 10});
  const difference = input({type: 'number', min: 0, step: 'any', value: 5});
  const samples = input({type: 'number', min: 30, value: 100});
  const errors = input({type: 'number', min: 0, step: 'any', placeholder: 'none'});
  const slow = input({type: 'number', min: 0, step: 'any', placeholder: 'none'});
  const root =
      h('details', {}, h('summary', {text: 'What is worth knowing, and when to stop an arm'}),
        h('div', {class: 'two tight'},
          field('Smallest effect, %', effect, {param: 'minimum_effect', hint: 'Of latencies and lengths.'}),
          field(
              'Smallest difference, points', difference,
              {param: 'minimum_difference', hint: 'Of error rates and feedback.'})),
        field('Samples of each arm before anything is said', samples, {param: 'minimum_samples'}),
        h('div', {class: 'two tight'}, field('Stop an arm above this error rate, %', errors, {param: 'max_error_rate'}),
          field('... or above this p95 to the first token, s', slow, {param: 'max_p95_time_to_first_token'})));
  const payload = () => {
    const body = {
      minimum_effect: (numberOf(effect) ?? 10) / 100,
      minimum_difference: (numberOf(difference) ?? 5) / 100,
      minimum_samples: numberOf(samples) ?? 100
    };
    const guardrails = {};
    if (numberOf(errors) !== undefined) guardrails.max_error_rate = numberOf(errors) / 100;
    if (numberOf(slow) !== undefined) guardrails.max_p95_time_to_first_token = numberOf(slow);
    if (Object.keys(guardrails).length > 0) body.guardrails = guardrails;
    return body;
  };
  return {root, payload};
}

export function openExperimentForm(saved) {
  const name = input({placeholder: 'model_comparison'});
  const arms = new ArmList();
  const sticky =
      select([['user', 'by user'], ['session', 'by session'], ['request', 'by the request\u2019s key']], 'user');
  const metric = select(Object.entries(METRIC_NAMES), 'time_to_first_token');
  const start = h('input', {type: 'checkbox', checked: true});
  const more = moreFields();
  openDialog({
    title: 'New A/B test',
    wide: true,
    body: [
      field('Name', name, {param: 'name'}),
      arms.root,
      h('div', {class: 'two tight'}, field('Decided by', metric, {param: 'primary_metric'}),
        field('The same arm for the same', sticky, {param: 'sticky_by'})),
      more.root,
      field('Start it at once', start, {param: 'start', inline: true}),
    ],
    submit: 'Create',
    onSubmit: async () => {
      const body = {
        name: textOf(name) ?? '',
        arms: arms.arms.map((arm, i) => arm.payload(i)),
        sticky_by: sticky.value,
        primary_metric: metric.value,
        ...more.payload()
      };
      if (!start.checked) body.start = false;
      await post('/admin/ab-tests', body);
      toast(`The test ${body.name} ${start.checked ? 'runs' : 'is a draft'}.`);
      saved(body.name);
    },
  });
}
