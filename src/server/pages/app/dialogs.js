// Dialogs, questions, messages that pass, and the fields that forms are made of.
import {h, icon, iconButton} from './dom.js';

// A form in a modal dialog. `onSubmit` may return a promise; while it runs the form waits, and what it throws is shown
// in the form, beside the field that the error names.
export function openDialog({title, intro, body, submit, danger = false, wide = false, onSubmit, onClose}) {
  const error = h('p', {class: 'form-error', role: 'alert', hidden: true});
  const send = h('button', {type: 'submit', class: danger ? 'danger' : 'primary', text: submit});
  const cancel = h('button', {type: 'button', text: 'Cancel', on: {click: () => dialog.close()}});
  const form =
      h('form', {novalidate: ''}, ...(intro ? [h('p', {class: 'intro', text: intro})] : []), ...body, error,
        h('footer', {class: 'dialog-foot'}, cancel, send));
  const titleId = `dialog-${Math.random().toString(36).slice(2)}`;
  const head =
      h('header', {class: 'dialog-head'}, h('h2', {id: titleId, text: title}),
        iconButton('close', 'Close', () => dialog.close()));
  const dialog = h('dialog', {class: wide ? 'wide' : '', 'aria-labelledby': titleId}, head, form);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    error.hidden = true;
    clearFieldErrors(form);
    send.disabled = true;
    try {
      await onSubmit();
      dialog.dataset.done = 'yes';
      dialog.close();
    } catch (problem) {
      if (!showFieldError(form, problem)) {
        error.textContent = problem.message;
        error.hidden = false;
      }
    }
    send.disabled = false;
  });
  dialog.addEventListener('close', () => {
    if (dialog.dataset.done !== 'yes') onClose?.();
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
  const first = form.querySelector('input, select, textarea');
  (first ?? send).focus();
  return dialog;
}

export function askToConfirm({title, text, submit, onSubmit, danger = true}) {
  return openDialog({title, intro: text, body: [], submit, danger, onSubmit});
}

// A message that passes; read out by screen readers.
export function toast(text, kind = 'info') {
  const place = document.getElementById('toasts');
  const close = () => node.remove();
  const node =
      h('div', {class: `toast ${kind}`}, icon(kind === 'error' ? 'alert' : 'check'), h('p', {text}),
        iconButton('close', 'Dismiss', close));
  place.append(node);
  while (place.children.length > 4) place.firstElementChild.remove();
  setTimeout(close, kind === 'error' ? 12000 : 5000);
}

// Runs what a button does: the button waits, an error becomes a message.
export async function act(button, work, done) {
  if (button) button.disabled = true;
  try {
    await work();
    if (done) toast(done);
  } catch (error) {
    if (error.name !== 'AbortError') toast(error.message, 'error');
  }
  if (button) button.disabled = false;
}

let nextId = 0;

// A labelled control. `param`: the name that the server's errors give it.
export function field(label, control, {hint, param, inline = false} = {}) {
  nextId += 1;
  control.id = `field-${nextId}`;
  const error = h('div', {class: 'field-error', id: `${control.id}-error`, role: 'alert', hidden: true});
  control.setAttribute('aria-describedby', `${control.id}-error`);
  const root = h('div', {class: inline ? 'field inline' : 'field', data: param ? {param} : {}});
  const name = h('label', {for: control.id, text: label
  });
  root.append(
      ...(inline ? [control, name] : [name, control]), ...(hint ? [h('p', {class: 'hint', text: hint})] : []), error);
  return root;
}

export function clearFieldErrors(form) {
  for (const node of form.querySelectorAll('.field-error')) {
    node.hidden = true;
    node.parentElement.querySelector('input, select, textarea')?.removeAttribute('aria-invalid');
  }
}

// True when the form has the field that the error is about.
export function showFieldError(form, problem) {
  if (!problem.param) return false;
  const names = [problem.param, problem.param.split(/[.[]/)[0]];
  const root = [...form.querySelectorAll('[data-param]')].find((node) => names.includes(node.dataset.param));
  if (!root) return false;
  const error = root.querySelector('.field-error');
  // The place of a mistake is shown under the text by a caret: those lines must not wrap.
  const [sentence, ...place] = problem.message.split('\n');
  error.replaceChildren(h('p', {text: sentence}), ...(place.length > 0 ? [h('pre', {text: place.join('\n')})] : []));
  error.hidden = false;
  const control = root.querySelector('input, select, textarea');
  control?.setAttribute('aria-invalid', 'true');
  control?.focus();
  error.scrollIntoView({block: 'nearest'});
  return true;
}

export function input(props = {}) {
  return h('input', {type: 'text', autocomplete: 'off', spellcheck: 'false', ...props});
}

export function select(options, value) {
  const node = h('select', {}, ...options.map((option) => {
    const [key, label] = Array.isArray(option) ? option : [option, option];
    return h('option', {value: key, text: label});
  }));
  if (value !== undefined) node.value = value;
  return node;
}

// Suggestions for a text field; what is typed may be something else.
export function suggest(control, names) {
  nextId += 1;
  const list = h('datalist', {id: `list-${nextId}`}, ...names.map((name) => h('option', {value: name})));
  control.setAttribute('list', list.id);
  return [control, list];
}

export const numberOf = (control) => (control.value.trim() === '' ? undefined : Number(control.value));
export const textOf = (control) => (control.value.trim() === '' ? undefined : control.value.trim());
export const listOf = (control) => control.value.split(',').map((part) => part.trim()).filter((part) => part !== '');
