// One streamed answer: sends it, tells what comes, and measures it as the client sees it.
import {stream} from './api.js';

// A model without a chat template continues text instead; who was told so once is not asked again.
const withoutTemplate = new Set();

const isMissingTemplate = (error) => error.status === 400 && /chat template/i.test(error.message);

// {text, reasoning} of a chunk of either route.
function pieceOf(chunk) {
  const choice = chunk.choices?.[0];
  return {
    text: choice?.delta?.content ?? choice?.text ?? '',
    reasoning: choice?.delta?.reasoning_content ?? choice?.delta?.reasoning ?? '',
    finish: choice?.finish_reason ?? null,
  };
}

function requestOf({model, messages, temperature, maxTokens}, asCompletion) {
  const body = {stream: true, stream_options: {include_usage: true}};
  if (model !== '') body.model = model;
  if (temperature !== undefined) body.temperature = temperature;
  if (maxTokens !== undefined) body.max_tokens = maxTokens;
  if (!asCompletion) return ['/v1/chat/completions', {...body, messages}];
  return ['/v1/completions', {...body, prompt: messages[messages.length - 1].content}];
}

async function open(options, signal) {
  const key = options.model;
  if (!withoutTemplate.has(key)) {
    try {
      return {...await stream('POST', ...requestOf(options, false), {signal}), asCompletion: false};
    } catch (error) {
      if (!isMissingTemplate(error)) throw error;
      withoutTemplate.add(key);
    }
  }
  return {...await stream('POST', ...requestOf(options, true), {signal}), asCompletion: true};
}

// What is known of an answer so far.
export class Answer {
  constructor() {
    this.id = null;
    this.text = '';
    this.reasoning = '';
    this.route = '';
    this.model = '';
    this.finish = null;
    this.usage = null;
    this.asCompletion = false;
    this.sent = performance.now();
    this.first = null;
    this.last = null;
    this.pieces = 0;
  }

  get firstTokenSeconds() { return this.first === null ? null : (this.first - this.sent) / 1000; }

  // Of the tokens after the first, which alone the time between first and last is about.
  get tokensPerSecond() {
    const tokens = this.usage?.completion_tokens ?? this.pieces;
    if (tokens < 2 || this.last === null || this.last <= this.first) return null;
    return (tokens - 1) / ((this.last - this.first) / 1000);
  }

  take(chunk) {
    this.id = chunk.id ?? this.id;
    this.model = chunk.model ?? this.model;
    if (chunk.usage) this.usage = chunk.usage;
    const {text, reasoning, finish} = pieceOf(chunk);
    if (finish !== null) this.finish = finish;
    if (text === '' && reasoning === '') return;
    this.last = performance.now();
    this.first ??= this.last;
    this.pieces += 1;
    this.text += text;
    this.reasoning += reasoning;
  }
}

// `changed(answer)` runs with each piece. Throws what the server refuses with, also in the middle.
export async function ask(options, signal, changed) {
  const answer = new Answer();
  const {response, events, asCompletion} = await open(options, signal);
  answer.asCompletion = asCompletion;
  answer.route = response.headers.get('x-inferneo-route') ?? '';
  changed(answer);
  for await (const {data} of events) {
    if (data === '[DONE]') break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message ?? 'The answer ended with an error.');
    answer.take(chunk);
    changed(answer);
  }
  return answer;
}
