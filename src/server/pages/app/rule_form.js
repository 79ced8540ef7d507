// The form of a routing rule. What the server has against a condition is shown as it says it, caret and all.
import {post, put} from './api.js';
import {field, input, listOf, numberOf, openDialog, select, suggest, textOf} from './dialogs.js';
import {h} from './dom.js';
import {modelNames} from './store.js';

const TARGETS =
    [['model_name', 'a model'], ['models', 'a chain of models'], ['ab_test', 'an A/B test'], ['refusal', 'a refusal']];

export const targetOf = (rule) =>
    TARGETS.map(([key]) => key).find((key) => rule[key] !== undefined && rule[key] !== null) ?? 'model_name';

// What a PUT takes of a rule that was read.
export function rulePayload(rule) {
  const {name, condition, priority, applies_to, enabled} = rule;
  return {name, condition, [targetOf(rule)]: rule[targetOf(rule)], priority, applies_to, enabled};
}

class TargetFields {
  constructor(rule, testNames) {
    this.kind = select(TARGETS, rule ? targetOf(rule) : 'model_name');
    this.model = input({value: rule?.model_name ?? ''});
    this.chain = input({value: (rule?.models ?? []).join(', '), placeholder: 'large, medium, small'});
    this.test = input({value: rule?.ab_test ?? ''});
    this.status = input({type: 'number', min: 400, max: 599, value: rule?.refusal?.status ?? 400});
    this.message = input({value: rule?.refusal?.message ?? ''});
    const [, models] = suggest(this.model, modelNames());
    const [, tests] = suggest(this.test, testNames);
    this.groups = {
      model_name:
          h('div', {}, field('Model', this.model, {param: 'model_name', hint: 'A name, name:version or an alias.'}),
            models),
      models:
          h('div', {},
            field(
                'Models, first choice first', this.chain,
                {param: 'models', hint: 'With commas between; the next one answers where one cannot.'})),
      ab_test: h('div', {}, field('A/B test', this.test, {param: 'ab_test'}), tests),
      refusal:
          h('div', {class: 'two tight'}, field('Status', this.status, {param: 'refusal'}),
            field('Message', this.message, {})),
    };
    this.root = h('div', {}, field('Sends it to', this.kind, {}), ...Object.values(this.groups));
    this.kind.addEventListener('change', () => this.show());
    this.show();
  }

  show() {
    for (const [kind, group] of Object.entries(this.groups)) group.hidden = kind !== this.kind.value;
  }

  payload() {
    switch (this.kind.value) {
      case 'models':
        return {models: listOf(this.chain)};
      case 'ab_test':
        return {ab_test: this.test.value.trim()};
      case 'refusal':
        return {refusal: {status: numberOf(this.status) ?? 400, message: this.message.value}};
      default:
        return {model_name: this.model.value.trim()};
    }
  }
}

// `rule`: the one to change; none: a new one. `saved` runs afterwards.
export function openRuleForm(rule, testNames, saved) {
  const name = input({value: rule?.name ?? '', placeholder: 'code_routing'});
  const condition = h('textarea', {
    rows: 3,
    class: 'mono',
    spellcheck: 'false',
    placeholder: 'prompt contains \'code\' or \'function\'',
    value: rule?.condition ?? ''
  });
  const target = new TargetFields(rule, testNames);
  const priority = input({type: 'number', step: 1, value: rule?.priority ?? 0});
  const applies = select(
      [['routed', 'requests that leave the choice open'], ['all', 'all requests, also those that name a model']],
      rule?.applies_to ?? 'routed');
  const enabled = h('input', {type: 'checkbox', checked: rule?.enabled ?? true});
  if (rule) name.readOnly = true;
  const nameField = field('Name', name, {param: 'name'});
  openDialog({
    title: rule ? `Rule ${rule.name}` : 'Add a rule',
    wide: true,
    body: [
      h('div', {class: 'two tight'}, nameField,
        field('Priority', priority, {param: 'priority', hint: 'Higher is asked earlier.'})),
      field(
          'Condition', condition,
          {param: 'condition', hint: 'Such as: prompt matches /^def\\s/ and not stream. `true` is always.'}),
      target.root,
      field('Applies to', applies, {param: 'applies_to'}),
      field('Enabled', enabled, {param: 'enabled', inline: true}),
    ],
    submit: rule ? 'Save' : 'Add',
    onSubmit: async () => {
      const body = {
        name: name.value.trim(),
        condition: textOf(condition) ?? '',
        ...target.payload(),
        priority: numberOf(priority) ?? 0,
        applies_to: applies.value,
        enabled: enabled.checked
      };
      if (rule) {
        await put(`/admin/routing-rules/${encodeURIComponent(rule.name)}`, body);
      } else {
        await post('/admin/routing-rules', body);
      }
      saved();
    },
  });
}
