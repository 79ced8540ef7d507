// Where would this request go? Asks /admin/explain, which decides as for a request and does nothing.
import {post} from './api.js';
import {clearFieldErrors, field, input, numberOf, showFieldError, suggest, textOf} from './dialogs.js';
import {h, icon, note, panel} from './dom.js';
import * as format from './format.js';
import {modelNames, sentenceFor} from './store.js';

const OUTCOMES = {
  disabled: 'is switched off',
  out_of_scope: 'is not for requests that name a model'
};

function ruleLine(rule) {
  return h(
      'li', {class: rule.matched ? 'matched' : ''}, icon(rule.matched ? 'check' : 'dash'),
      h('p', {}, h('strong', {text: rule.name}), ' ',
        h('span', {text: rule.why ?? OUTCOMES[rule.outcome] ?? (rule.matched ? 'matched' : 'did not match')})));
}

function outcome(result) {
  if (result.refusal) {
    return h(
        'div', {class: 'outcome bad'}, h('span', {class: 'label', text: 'It would be refused'}),
        h('strong', {text: `${result.refusal.status ?? ''} ${result.refusal.message ?? ''}`.trim()}));
  }
  const by = [
    result.rule && `rule ${result.rule}`, result.test && `test ${result.test}`, result.arm && `arm ${result.arm}`
  ].filter(Boolean);
  return h(
      'div', {class: 'outcome good'}, h('span', {class: 'label', text: 'It would be answered by'}),
      h('strong', {text: result.model ?? format.NONE}),
      h('span', {class: 'sub', text: by.length > 0 ? `by ${by.join(', ')}` : 'no rule matched'}));
}

function loadingNote(loading) {
  const time = typeof loading.seconds === 'number' ? `, in about ${format.span(loading.seconds)}` : '';
  const goes = loading.evicts?.length > 0 ? ` ${loading.evicts.join(', ')} would leave memory for it.` : '';
  const text = loading.fits ? `${loading.model} is not in memory and would be loaded${time}.${goes}`
                            : loading.refusal ?? `${loading.model} is not in memory and does not fit now.`;
  return note(text, loading.fits ? 'info' : 'bad');
}

function show(result) {
  const parts = [outcome(result)];
  if (result.loading) parts.push(loadingNote(result.loading));
  if (result.rules?.length > 0) {
    parts.push(h('h3', {text: 'Rules that were asked'}), h('ol', {class: 'explained'}, ...result.rules.map(ruleLine)));
  }
  if (result.steps?.length > 0) {
    parts.push(
        h('h3', {text: 'Step by step'}), h('ol', {class: 'steps'}, ...result.steps.map((text) => h('li', {text}))));
  }
  if (result.route) parts.push(h('p', {class: 'sub'}, 'x-inferneo-route: ', h('code', {text: result.route})));
  return parts;
}

export function createExplain() {
  const prompt = h('textarea', {rows: 3, placeholder: 'Write a function that sorts a list.'});
  const model = input({value: 'auto'});
  const user = input({placeholder: 'alice'});
  const session = input({});
  const maxTokens = input({type: 'number', min: 1});
  const stream = h('input', {type: 'checkbox'});
  const tools = h('input', {type: 'checkbox'});
  const [, names] = suggest(model, []);
  model.addEventListener(
      'focus', () => names.replaceChildren(...['auto', ...modelNames()].map((value) => h('option', {value}))));
  const submit = h('button', {type: 'submit', class: 'primary', text: 'Explain'});
  const error = h('p', {class: 'form-error', role: 'alert', hidden: true});
  const result = h('div', {class: 'explanation', 'aria-live': 'polite'});
  const more =
      h('details', {}, h('summary', {text: 'More of the request'}),
        h('div', {class: 'two tight'}, field('Session', session, {param: 'session'}),
          field('Max tokens', maxTokens, {param: 'max_tokens'})),
        field('Streamed', stream, {inline: true}), field('Offers tools', tools, {inline: true}));
  const form =
      h('form', {novalidate: ''}, field('Prompt', prompt, {param: 'prompt'}),
        h('div', {class: 'two tight'}, h('div', {}, field('Model', model, {param: 'model'}), names),
          field('User', user, {param: 'user'})),
        more, error, h('div', {class: 'form-foot'}, submit));
  const parts = panel('Where would it go?', h('div', {class: 'explain'}, form, result));

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    clearFieldErrors(form);
    error.hidden = true;
    submit.disabled = true;
    const body = {
      prompt: prompt.value,
      model: textOf(model),
      user: textOf(user),
      session: textOf(session),
      max_tokens: numberOf(maxTokens)
    };
    if (stream.checked) body.stream = true;
    if (tools.checked) body.has_tools = true;
    try {
      result.replaceChildren(...show(await post('/admin/explain', body)));
    } catch (problem) {
      result.replaceChildren();
      if (!showFieldError(form, problem)) {
        error.textContent = problem.status === 404 && problem.param === null
            ? sentenceFor(problem, 'explanations (/admin/explain)')
            : problem.message;
        error.hidden = false;
      }
    }
    submit.disabled = false;
  });
  return parts.root;
}
