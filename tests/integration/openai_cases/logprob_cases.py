"""Log-probabilities: signs, order, agreement with the greedy choice and with one another."""

import math

from .harness import OPENING, QUESTION, STORY, case, check, equal, text_of

GREEDY = {"model": STORY, "temperature": 0, "max_tokens": 12}


def check_order(values, what):
    check(all(value <= 0 and math.isfinite(value) for value in values), lambda: f"{what}: {values}")
    equal(values, sorted(values, reverse=True), f"{what}: order")


def check_chat_token(token, num_top):
    check_order([top.logprob for top in token.top_logprobs], token.token)
    equal(len(token.top_logprobs), num_top, "top_logprobs")
    equal(bytes(token.bytes).decode("utf-8", "replace"), token.token, "bytes")
    if num_top > 0:  # at temperature 0 the most probable one is taken
        best = token.top_logprobs[0]
        equal((best.token, best.logprob), (token.token, token.logprob), "greedy choice")
        check(sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1.001, "probabilities beyond 1")


@case
def chat_logprobs(api):
    """chat: one entry per token, its text the message's, top_logprobs sorted and led by the greedy choice"""
    for num_top in (0, 1, 5, 20):
        reply = api.chat.create(messages=QUESTION, logprobs=True, top_logprobs=num_top, **GREEDY)
        tokens = reply.choices[0].logprobs.content
        equal(len(tokens), reply.usage.completion_tokens, "entries")
        equal(b"".join(bytes(token.bytes) for token in tokens).decode(), text_of(reply), "text of the entries")
        for token in tokens:
            check_chat_token(token, num_top)
    equal(api.chat.create(messages=QUESTION, **GREEDY).choices[0].logprobs, None, "without being asked")


@case
def chat_logprobs_streamed(api):
    """chat: streamed log-probabilities are those of the whole answer"""
    asked = {"messages": QUESTION, "logprobs": True, "top_logprobs": 2, **GREEDY}
    whole = [(t.token, t.logprob) for t in api.chat.create(**asked).choices[0].logprobs.content]
    streamed = []
    for chunk in api.chat.create(stream=True, **asked):
        logprobs = chunk.choices[0].logprobs
        streamed += [(t.token, t.logprob) for t in logprobs.content] if logprobs else []
    equal([t for t, _ in streamed], [t for t, _ in whole])
    check(all(abs(a - b) < 1e-3 for (_, a), (_, b) in zip(streamed, whole)), lambda: f"{streamed} {whole}")


@case
def completion_logprobs(api):
    """completions: four lists of one length, offsets that point at the tokens, the chosen one among the top"""
    reply = api.completions.create(prompt=OPENING, logprobs=3, **GREEDY)
    choice, logprobs = reply.choices[0], reply.choices[0].logprobs
    lists = (logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, logprobs.text_offset)
    equal([len(entries) for entries in lists], [12] * 4, "entries")
    for token, logprob, top, offset in zip(*lists):
        check_order([logprob], token)
        equal(max(top, key=top.get), token, "greedy choice")
        equal(top[token], logprob)
        equal(len(top), 3)
        check(choice.text[offset:].startswith(token), lambda: f"offset {offset} of {token!r}")
    only_chosen = api.completions.create(prompt=OPENING, logprobs=0, **GREEDY).choices[0].logprobs
    equal([list(top) for top in only_chosen.top_logprobs], [[token] for token in logprobs.tokens], "logprobs=0")


@case
def scoring(api):
    """echo with logprobs and max_tokens=0 scores the prompt and writes nothing, streamed too"""
    text = "Once upon a time there was a fox."
    asked = {"model": STORY, "prompt": text, "echo": True, "logprobs": 2, "max_tokens": 0}
    reply = api.completions.create(**asked)
    choice, logprobs = reply.choices[0], reply.choices[0].logprobs
    equal((choice.text, choice.finish_reason), (text, "length"))
    equal((reply.usage.completion_tokens, reply.usage.prompt_tokens), (0, len(logprobs.tokens)))
    equal("".join(logprobs.tokens), text)
    equal((logprobs.token_logprobs[0], logprobs.top_logprobs[0]), (None, None), "the first token has no context")
    check(all(value <= 0 for value in logprobs.token_logprobs[1:]), logprobs.token_logprobs)
    for token, offset in zip(logprobs.tokens, logprobs.text_offset):
        check(text[offset:].startswith(token), lambda: f"offset {offset} of {token!r}")
    chunks = list(api.completions.create(stream=True, **asked))
    equal("".join(c.choices[0].text for c in chunks), text, "streamed")
    equal([t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.tokens], logprobs.tokens)
    equal([c.choices[0].finish_reason for c in chunks][-1], "length")


@case
def scores_agree(api):
    """the scores of an echoed text are those with which the same text was written"""
    written = api.completions.create(prompt=OPENING, logprobs=0, **GREEDY).choices[0]
    scored = api.completions.create(model=STORY, prompt=OPENING + written.text, echo=True, logprobs=0, max_tokens=0)
    tail = scored.choices[0].logprobs
    equal(tail.tokens[-12:], written.logprobs.tokens)
    for one, other in zip(tail.token_logprobs[-12:], written.logprobs.token_logprobs):
        check(abs(one - other) < 0.05, lambda: f"{tail.token_logprobs[-12:]} {written.logprobs.token_logprobs}")


@case
def echo(api):
    """echo puts the prompt in front of each choice, streamed too; with logprobs its tokens are among the lists"""
    plain = api.completions.create(prompt=OPENING, **GREEDY)
    echoed = api.completions.create(prompt=OPENING, echo=True, n=2, **GREEDY)
    equal([c.text for c in echoed.choices], [OPENING + text_of(plain)] * 2)
    chunks = api.completions.create(prompt=OPENING, echo=True, stream=True, **GREEDY)
    equal("".join(c.choices[0].text for c in chunks), OPENING + text_of(plain))
    scored = api.completions.create(prompt=OPENING, echo=True, logprobs=1, **GREEDY)
    equal("".join(scored.choices[0].logprobs.tokens), text_of(scored))
    equal(len(scored.choices[0].logprobs.tokens), scored.usage.total_tokens)
