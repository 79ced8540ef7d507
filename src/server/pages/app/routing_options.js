// What happens where no rule matches: strategy, candidates, fallbacks. Shown as a list, changed in a form.
import {put} from './api.js';
import {field, input, listOf, numberOf, openDialog, select, textOf, toast} from './dialogs.js';
import {h} from './dom.js';

const STRATEGIES = [
  ['default', 'the default model'], ['round_robin', 'one after the other'], ['least_loaded', 'the least loaded'],
  ['lowest_latency', 'the fastest of late'], ['weighted', 'at random, by weight']
];

const candidateText = ({model, weight}) => (weight === undefined || weight === 1 ? model : `${model}=${weight}`);

function readCandidate(text) {
  const at = text.lastIndexOf('=');
  if (at < 0) return {model: text, weight: 1};
  const weight = Number(text.slice(at + 1));
  if (!Number.isFinite(weight))
    throw Object.assign(new Error(`The weight of '${text}' is not a number; write model=0.5.`), {param: 'candidates'});
  return {model: text.slice(0, at).trim(), weight};
}

// One chain a line: "large: medium, small".
function readFallbacks(text) {
  const chains = {};
  for (const line of text.split('\n').map((part) => part.trim()).filter(Boolean)) {
    // Of a model with a version, the colon that separates has a space after it.
    const at = line.search(/:\s/);
    if (at < 1)
      throw Object.assign(
          new Error(`'${line}' is not a chain; write one a line, as "large: medium, small".`), {param: 'fallbacks'});
    chains[line.slice(0, at).trim()] = line.slice(at + 1).split(',').map((part) => part.trim()).filter(Boolean);
  }
  return chains;
}

const fallbackLines = (fallbacks) =>
    Object.entries(fallbacks ?? {}).map(([model, chain]) => `${model}: ${chain.join(', ')}`);

export function optionRows(options) {
  const strategy = STRATEGIES.find(([key]) => key === options.strategy);
  return [
    ['Strategy', strategy ? `${strategy[0]} (${strategy[1]})` : options.strategy],
    ['Default model', options.default_model || 'none'],
    ['Candidates', (options.candidates ?? []).map(candidateText).join(', ') || 'none'],
    ['Fallbacks', fallbackLines(options.fallbacks).join('; ') || 'none'],
    ['Spill over at', options.spill_over_at ? `${options.spill_over_at} waiting requests` : 'never'],
    ['Routed names', ['auto', ...(options.routed_names ?? [])].join(', ')],
  ];
}

export function openOptionsForm(options, saved) {
  const strategy = select(STRATEGIES.map(([key, label]) => [key, `${key}: ${label}`]), options.strategy);
  const model = input({value: options.default_model ?? ''});
  const candidates =
      input({value: (options.candidates ?? []).map(candidateText).join(', '), placeholder: 'small, large=0.2'});
  const fallbacks = h('textarea', {
    rows: 3,
    class: 'mono',
    spellcheck: 'false',
    placeholder: 'large: medium, small',
    value: fallbackLines(options.fallbacks).join('\n')
  });
  const spill = input({type: 'number', min: 0, value: options.spill_over_at ?? ''});
  const names = input({value: (options.routed_names ?? []).join(', '), placeholder: 'smart'});
  openDialog({
    title: 'Where no rule matches',
    wide: true,
    body: [
      h('div', {class: 'two tight'}, field('Strategy', strategy, {param: 'strategy'}),
        field('Default model', model, {param: 'default_model'})),
      field('Candidates', candidates, {param: 'candidates', hint: 'With commas between; model=0.2 gives a weight.'}),
      field(
          'Fallbacks', fallbacks,
          {param: 'fallbacks', hint: 'One chain a line: the model, a colon, who answers for it.'}),
      h('div', {class: 'two tight'},
        field(
            'Spill over at', spill,
            {param: 'spill_over_at', hint: 'Waiting requests before the next of a chain is taken; 0: never.'}),
        field('Routed names', names, {param: 'routed_names', hint: 'Besides auto.'})),
    ],
    submit: 'Save',
    onSubmit: async () => {
      const body = {
        strategy: strategy.value,
        default_model: textOf(model),
        candidates: listOf(candidates).map(readCandidate),
        fallbacks: readFallbacks(fallbacks.value),
        routed_names: listOf(names)
      };
      if (numberOf(spill) !== undefined) body.spill_over_at = numberOf(spill);
      await put('/admin/routing', body);
      toast('The routing options are saved.');
      saved();
    },
  });
}
