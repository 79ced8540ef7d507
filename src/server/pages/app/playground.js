// Playground: a conversation with a model, streamed, with what it took.
import {post} from './api.js';
import {ask} from './chat.js';
import {field, input, numberOf, select, toast} from './dialogs.js';
import {h, icon, iconButton, setHidden, setText} from './dom.js';
import * as format from './format.js';
import {isEmpty, listen, modelNames, readyName, refreshModels} from './store.js';

const NO_TEMPLATE =
    'This model has no chat template: your last message went to /v1/completions as it is, and the model ' +
    'continued it.';

class Message {
  constructor(role, text) {
    this.role = role;
    this.text = text;
    this.content = h('div', {class: 'content', text});
    this.meta = h('div', {class: 'meta'});
    const who = role === 'user' ? 'You' : 'Model';
    this.who = h('span', {class: 'who', text: who});
    this.root =
        h('article', {class: `message ${role}`, 'aria-label': role === 'user' ? 'Question' : 'Answer'}, this.who,
          this.content, this.meta);
  }

  fact(label, value) {
    return h('span', {class: 'fact'}, h('span', {text: label}), h('b', {class: 'num', text: value}));
  }

  show(answer) {
    this.text = answer.text;
    setText(this.content, answer.text);
    if (answer.model) setText(this.who, answer.model);
    if (answer.reasoning) {
      this.reasoning ??= this.root.insertBefore(
          h('details', {class: 'reasoning'}, h('summary', {text: 'Reasoning'}), h('p')), this.content);
      setText(this.reasoning.lastChild, answer.reasoning);
    }
  }

  finish(answer, {stopped}) {
    const usage = answer.usage;
    const speed = answer.tokensPerSecond;
    const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0;
    const prompt =
        usage ? `${format.count(usage.prompt_tokens)}${cached > 0 ? ` (${format.count(cached)} cached)` : ''}` : null;
    const facts = [
      ['first token', answer.firstTokenSeconds === null ? null : format.latency(answer.firstTokenSeconds)],
      ['speed', speed === null ? null : `${format.rate(speed)} tokens/s`], ['prompt', prompt],
      ['answer', usage ? format.plural(usage.completion_tokens, 'token') : null],
      ['ended', stopped ? 'stopped by you' : answer.finish]
    ];
    this.meta.append(...facts.filter(([, value]) => value !== null).map(([label, value]) => this.fact(label, value)));
    if (answer.asCompletion) {
      this.meta.prepend(h('p', {class: 'note info', text: NO_TEMPLATE}));
    }
    if (answer.id && !stopped) this.meta.append(this.thumbs(answer.id));
    if (answer.route) this.meta.append(h('code', {class: 'route', text: answer.route, title: 'x-inferneo-route'}));
  }

  thumbs(id) {
    const group = h('span', {class: 'thumbs', role: 'group', 'aria-label': 'Was this answer good?'});
    const rate = async (button, rating) => {
      for (const other of group.children) other.disabled = true;
      try {
        const result = await post('/v1/feedback', {id, rating});
        button.classList.add('chosen');
        button.setAttribute('aria-pressed', 'true');
        toast(
            result.test ? `Counted for arm ${result.arm} of ${result.test}.`
                : result.recorded ? 'Thank you; it is recorded.'
                                  : 'Thank you; no test was running for this answer.');
      } catch (error) {
        if (error.status === 404 && error.param === null) {
          group.replaceWith(h('span', {class: 'sub', text: 'This server takes no feedback yet.'}));
        } else {
          for (const other of group.children) other.disabled = false;
          toast(error.message, 'error');
        }
      }
    };
    for (const [rating, label] of [['up', 'Good answer'], ['down', 'Bad answer']]) {
      const button = iconButton(`thumb-${rating}`, label, () => rate(button, rating));
      group.append(button);
    }
    return group;
  }

  fail(text) {
    this.root.classList.add('failed');
    this.meta.append(h('p', {class: 'note bad', role: 'alert', text}));
  }
}

class Settings {
  constructor() {
    this.model = select([['auto', 'auto (as routed)']], 'auto');
    this.system = h('textarea', {rows: 3, placeholder: 'None'});
    this.temperature = input({type: 'number', min: 0, max: 2, step: 0.1, placeholder: 'the model\'s own'});
    this.maxTokens = input({type: 'number', min: 1, step: 1, value: 256});
    this.root =
        h('details', {class: 'panel settings', open: window.matchMedia('(min-width: 860px)').matches},
          h('summary', {text: 'Model and settings'}),
          h('div', {class: 'panel-body'}, field('Model', this.model, {}), field('System prompt', this.system, {}),
            h('div', {class: 'two tight'}, field('Temperature', this.temperature, {}),
              field('Max tokens', this.maxTokens, {}))));
  }

  // The picked model stays picked while the list changes under it.
  setModels(names) {
    const options = [['auto', 'auto (as routed)'], ...names.map((name) => [name, name])];
    const shown = [...this.model.options].map((option) => option.value);
    if (shown.join('\n') === options.map(([key]) => key).join('\n')) return;
    const picked = this.model.value;
    this.model.replaceChildren(...options.map(([value, text]) => h('option', {value, text})));
    const unset = shown.length === 1 && picked === 'auto' && names.length > 0;
    this.model.value = unset ? readyName() : options.some(([key]) => key === picked) ? picked : 'auto';
  }
}

export function createPlayground() {
  const settings = new Settings();
  const messages = [];
  let abort = null;
  const hint = h('div', {class: 'empty'}, h('p', {text: 'Say something to a model.'}), h('p', {class: 'hint'}));
  const log = h('div', {class: 'log', tabindex: 0, role: 'log', 'aria-label': 'Conversation'}, hint);
  const prompt = h('textarea', {rows: 2, placeholder: 'Tell me a story about a fox.'});
  const send = h('button', {type: 'submit', class: 'primary'}, icon('send'), 'Send');
  const stop = h('button', {type: 'button', hidden: true, on: {click: () => abort?.abort()}}, icon('stop'), 'Stop');
  const clear = h('button', {type: 'button', class: 'small', text: 'New conversation', on: {click: () => startAnew()}});
  const label = h('label', {class: 'unseen', for: 'prompt', text: 'Your message'});
    prompt.id = 'prompt';
    const form = h('form', {class: 'composer'}, label, prompt, send, stop);
    const chat =
        h('section', {class: 'panel chat'},
          h('header', {class: 'panel-head'}, h('h2', {text: 'Playground'}), h('div', {class: 'panel-actions'}, clear)),
          log, form);
    const root = h('div', {class: 'view playground'}, chat, settings.root);

    function startAnew() {
      abort?.abort();
      messages.length = 0;
      log.replaceChildren(hint);
      prompt.focus();
    }

    function add(message) {
      hint.remove();
      log.append(message.root);
      log.scrollTop = log.scrollHeight;
      return message;
    }

    // Follows the text unless the reader scrolled up.
    function follow(change) {
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      change();
      if (atEnd) log.scrollTop = log.scrollHeight;
    }

    function history() {
      const system = settings.system.value.trim();
      const turns = messages.filter(({text}) => text !== '').map(({role, text}) => ({role, content: text}));
      return system === '' ? turns : [{role: 'system', content: system}, ...turns];
    }

    function setBusy(busy) {
      setHidden(send, busy);
      setHidden(stop, !busy);
      log.setAttribute('aria-busy', String(busy));
    }

    async function submit() {
      const text = prompt.value.trim();
      if (text === '' || abort) return;
      prompt.value = '';
      messages.push(add(new Message('user', text)));
      const options = {
        model: settings.model.value,
        messages: history(),
        temperature: numberOf(settings.temperature),
        maxTokens: numberOf(settings.maxTokens)
      };
      const reply = add(new Message('assistant', ''));
      reply.root.classList.add('waiting');
      abort = new AbortController();
      setBusy(true);
      let answer = null;
      let stopped = false;
      try {
        await ask(options, abort.signal, (known) => {
          answer = known;
          follow(() => {
            reply.root.classList.toggle('waiting', known.text === '' && known.reasoning === '');
            reply.show(known);
          });
        });
      } catch (error) {
        stopped = error.name === 'AbortError';
        if (!stopped) follow(() => reply.fail(error.message));
      }
      reply.root.classList.remove('waiting');
      if (answer) follow(() => reply.finish(answer, {stopped}));
      // A question without an answer is not part of what is said later: templates want turns.
      if (answer?.text) {
        messages.push(reply);
      } else {
        messages.pop();
      }
      if (stopped && !answer) reply.fail('Stopped before it began.');
      abort = null;
      setBusy(false);
      refreshModels();
    }

    form.addEventListener('submit', (event) => {
      event.preventDefault();
      submit();
    });
    prompt.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      submit();
    });

    function update() {
      settings.setModels(modelNames());
      setText(
          hint.lastChild,
          isEmpty() ? 'No model is registered yet; the page Models has a form for it.'
                    : 'Enter sends, Shift+Enter begins a new line.');
    }
    listen('models', update);
    listen('stats', update);
    return {root, show: update};
}
