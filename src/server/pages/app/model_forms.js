// The form that registers a model.
import {post} from './api.js';
import {field, input, listOf, openDialog, textOf, toast} from './dialogs.js';
import {h} from './dom.js';
import {refreshModels} from './store.js';

// "90", "5m", "1h30m", "forever" to seconds, as requests may say it too.
function keepAliveSeconds(text) {
  const value = text.trim().toLowerCase();
  if (value === '') return undefined;
  if (value === 'forever' || value === '-1') return -1;
  if (/^\d+$/.test(value)) return Number(value);
  const parts = [...value.matchAll(/(\d+)([hms])/g)];
  if (parts.length === 0 || parts.map((part) => part[0]).join('') !== value) return null;
  return parts.reduce((sum, part) => sum + Number(part[1]) * {h: 3600, m: 60, s: 1}[part[2]], 0);
}

export function openRegisterForm() {
  const name = input({placeholder: 'story', required: ''});
  const version = input({placeholder: '1'});
  const source = input({placeholder: 'models/inferneo-story or ORG/NAME', required: ''});
  const aliases = input({placeholder: 'tale, teller'});
  const keepAlive = input({placeholder: 'the server\'s default'});
  const pinned = h('input', {type: 'checkbox'});
  openDialog({
    title: 'Register a model',
    body: [
      h('div', {class: 'two tight'}, field('Name', name, {param: 'name'}),
        field('Version', version, {param: 'version', hint: 'Empty: the next number.'})),
      field(
          'Source', source,
          {param: 'source', hint: 'A directory below --model-roots, or a hub id that is downloaded at its first use.'}),
      h('div', {class: 'two tight'},
        field('Aliases', aliases, {param: 'aliases', hint: 'Other names, with commas between.'}),
        field('Keep-alive', keepAlive, {param: 'keep_alive', hint: 'Idle time in memory: 5m, 1h30m, forever.'})),
      field('Pinned: never unloaded to make room', pinned, {param: 'pinned', inline: true}),
    ],
    submit: 'Register',
    onSubmit: async () => {
      const body = {name: name.value.trim(), source: source.value.trim()};
      if (textOf(version)) body.version = textOf(version);
      if (textOf(keepAlive)) body.keep_alive = keepAliveSeconds(keepAlive.value) ?? keepAlive.value.trim();
      if (listOf(aliases).length > 0) body.aliases = listOf(aliases);
      if (pinned.checked) body.pinned = true;
      const model = await post('/admin/models', body);
      toast(`${model.id} is registered.`);
      refreshModels();
    },
  });
}

export function openKeepAliveForm(model, save) {
  const control = input(
      {value: model.keep_alive === null ? ''
           : model.keep_alive < 0       ? 'forever'
                                        : String(model.keep_alive)});
  openDialog({
    title: `Keep-alive of ${model.id}`,
    body: [field(
        'Idle time in memory', control,
        {param: 'keep_alive', hint: '90, 5m, 1h30m, forever; empty: the server\'s default.'})],
    submit: 'Set',
    onSubmit: async () => {
      const seconds = keepAliveSeconds(control.value);
      if (seconds === null)
        throw Object.assign(new Error('Write it as 90, 5m, 1h30m or forever.'), {param: 'keep_alive'});
      await save(seconds ?? null);
    },
  });
}
