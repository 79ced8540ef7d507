"""Text: chat and completions, whole and streamed; n, stop, seeds, lengths, biases."""

import asyncio

import openai

from .harness import CODE, OPENING, QUESTION, STORY, case, check, equal, raises, text_of

GREEDY = {"model": STORY, "temperature": 0, "max_tokens": 24}


class Streamed:
    """The choices of a stream put together; every chunk is looked at."""

    def __init__(self, stream):
        self.texts, self.finish, self.roles, self.ids, self.usages = {}, {}, {}, set(), []
        for chunk in stream:
            self.ids.add(chunk.id)
            check(not self.usages, "a chunk after the one with the usage")
            if chunk.usage is not None:
                equal(chunk.choices, [], "choices of the usage's chunk")
                self.usages.append(chunk.usage)
                continue
            equal(len(chunk.choices), 1, "choices of a chunk")
            self._add(chunk.choices[0])
        equal(len(self.ids), 1, "ids of one stream")

    def _add(self, choice):
        check(choice.index not in self.finish, "a chunk after the last one of its choice")
        if hasattr(choice, "delta"):
            first = choice.index not in self.roles
            equal(choice.delta.role, "assistant" if first else None, "role")
            self.roles[choice.index] = choice.delta.role
            text = choice.delta.content or ""
        else:
            text = choice.text
        self.texts[choice.index] = self.texts.get(choice.index, "") + text
        if choice.finish_reason is not None:
            self.finish[choice.index] = choice.finish_reason


@case
def chat_whole(api):
    """a chat answers with a message, a usage that adds up and the model's name"""
    reply = api.chat.create(messages=QUESTION, **GREEDY)
    equal((reply.object, reply.model), ("chat.completion", STORY))
    message = reply.choices[0].message
    equal((message.role, message.refusal, message.tool_calls), ("assistant", None, None))
    check(len(message.content) > 20, message.content)
    usage = reply.usage
    equal(usage.completion_tokens, 24, "tokens")
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "usage")
    check(0 <= usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens, usage)


@case
def chat_streamed(api):
    """a streamed chat says what the whole one says, and its usage is the same"""
    whole = api.chat.create(messages=QUESTION, **GREEDY)
    streamed = Streamed(
        api.chat.create(messages=QUESTION, stream=True, stream_options={"include_usage": True}, **GREEDY))
    equal(streamed.texts, {0: text_of(whole)})
    equal(streamed.finish, {0: whole.choices[0].finish_reason})
    equal([u.total_tokens for u in streamed.usages], [whole.usage.total_tokens], "usage")
    without = Streamed(api.chat.create(messages=QUESTION, stream=True, **GREEDY))
    equal((without.texts, without.usages), (streamed.texts, []))


@case
def completion_streamed(api):
    """a streamed completion says what the whole one says, and its usage is the same"""
    whole = api.completions.create(prompt=OPENING, **GREEDY)
    equal((whole.object, whole.model), ("text_completion", STORY))
    streamed = Streamed(
        api.completions.create(prompt=OPENING, stream=True, stream_options={"include_usage": True}, **GREEDY))
    equal(streamed.texts, {0: text_of(whole)})
    equal(streamed.finish, {0: "length"})
    equal([u.total_tokens for u in streamed.usages], [whole.usage.total_tokens], "usage")


@case
def completion_prompts(api):
    """a completion takes strings, token ids and lists of both; each prompt has its own choice"""
    one, two = (text_of(api.completions.create(prompt=p, **GREEDY)) for p in (OPENING, "The little"))
    both = api.completions.create(prompt=[OPENING, "The little"], **GREEDY)
    equal([(c.index, c.text) for c in both.choices], [(0, one), (1, two)])
    ids = api.post("/tokenize", {"model": STORY, "prompt": OPENING}).json()["tokens"]
    equal(text_of(api.completions.create(prompt=ids, **GREEDY)), one, "token ids")
    equal([c.text for c in api.completions.create(prompt=[ids, ids], **GREEDY).choices], [one, one], "lists of ids")


@case
def both_models(api):
    """each of two models answers under its own name"""
    for model in (STORY, CODE):
        reply = api.completions.create(model=model, prompt="def add(a, b):", max_tokens=8, temperature=0)
        equal(reply.model, model)
    check(text_of(reply) != text_of(api.completions.create(model=STORY, prompt="def add(a, b):", max_tokens=8,
                                                           temperature=0)), "two models say the same")


@case
def async_client(api):
    """the asynchronous client gets the same, whole and streamed"""

    async def work(client):
        whole = await client.chat.completions.create(messages=QUESTION, **GREEDY)
        text = ""
        async for chunk in await client.chat.completions.create(messages=QUESTION, stream=True, **GREEDY):
            text += chunk.choices[0].delta.content or ""
        completion = await client.completions.create(prompt=OPENING, **GREEDY)
        return text_of(whole), text, text_of(completion)

    wanted = text_of(api.chat.create(messages=QUESTION, **GREEDY))
    equal(api.run(work), (wanted, wanted, text_of(api.completions.create(prompt=OPENING, **GREEDY))))


@case
def several_samples(api):
    """n gives n different samples with their indices, in chat and completions, whole and streamed the same"""
    sampled = {"model": STORY, "temperature": 1.5, "seed": 7, "max_tokens": 16, "n": 4}
    for create, prompt in ((api.chat.create, {"messages": QUESTION}), (api.completions.create, {"prompt": OPENING})):
        whole = create(**prompt, **sampled)
        equal([c.index for c in whole.choices], [0, 1, 2, 3])
        texts = {c.index: c.text if hasattr(c, "text") else c.message.content for c in whole.choices}
        equal(len(set(texts.values())), 4, "different samples")
        streamed = Streamed(create(stream=True, **prompt, **sampled))
        equal(streamed.texts, texts)
        equal(sorted(streamed.finish), [0, 1, 2, 3])
    equal(whole.usage.completion_tokens, 64, "tokens of all samples")


@case
def stop_strings(api):
    """a stop string ends the text in front of it; no byte of it is shown, streamed or not"""
    whole = text_of(api.completions.create(prompt=OPENING, **{**GREEDY, "max_tokens": 64}))
    middle = whole[len(whole) // 2:]
    for stop in (middle[1:6], [middle[1:6]], ["\u2603", middle[2:9]], middle[:1], [middle[3:5], middle[1:6]]):
        stops = [stop] if isinstance(stop, str) else stop
        wanted = whole[:min(whole.find(s) for s in stops if s in whole)]
        arguments = {**GREEDY, "max_tokens": 64, "prompt": OPENING, "stop": stop}
        reply = api.completions.create(**arguments)
        # Of overlapping stops the one that is complete first wins; both begin behind nothing that is shown.
        check(reply.choices[0].text.startswith(wanted) and not any(s in reply.choices[0].text for s in stops),
              lambda: f"{stop!r}: {reply.choices[0].text!r}, wanted {wanted!r}")
        equal(reply.choices[0].finish_reason, "stop")
        streamed = Streamed(api.completions.create(stream=True, **arguments))
        equal((streamed.texts, streamed.finish), ({0: reply.choices[0].text}, {0: "stop"}), f"stop {stop!r}")


@case
def stop_in_chat(api):
    """stop works in chat; a stop that never comes changes nothing"""
    whole = text_of(api.chat.create(messages=QUESTION, **GREEDY))
    stop = whole[10:14]
    reply = api.chat.create(messages=QUESTION, stop=[stop], **GREEDY)
    equal((text_of(reply), reply.choices[0].finish_reason), (whole[:whole.find(stop)], "stop"))
    equal(text_of(api.chat.create(messages=QUESTION, stop="\u2603", **GREEDY)), whole)


@case
def seeds(api):
    """the same seed gives the same text, alone and among eight others at once; another seed another text"""
    sampled = {"model": STORY, "prompt": OPENING, "temperature": 1, "max_tokens": 24}
    alone = [text_of(api.completions.create(seed=seed, **sampled)) for seed in range(8)]
    equal([text_of(api.completions.create(seed=seed, **sampled)) for seed in range(8)], alone, "again")
    check(len(set(alone)) >= 7, alone)

    async def work(client):
        replies = await asyncio.gather(*(client.completions.create(seed=seed, **sampled) for seed in range(8)))
        return [text_of(reply) for reply in replies]

    equal(api.run(work), alone, "together")
    check(len({text_of(api.completions.create(**sampled)) for _ in range(4)}) > 1, "without a seed all are equal")


@case
def lengths(api):
    """max_tokens and max_completion_tokens end with `length`, a model's own end with `stop`"""
    for limit in ("max_tokens", "max_completion_tokens"):
        reply = api.chat.create(model=STORY, messages=QUESTION, temperature=0, **{limit: 3})
        equal((reply.choices[0].finish_reason, reply.usage.completion_tokens), ("length", 3), limit)
    reply = api.chat.create(model=STORY, messages=QUESTION, temperature=0)
    equal(reply.choices[0].finish_reason, "stop", "the story's own end")
    check("<|" not in text_of(reply), "a special token is shown")


@case
def logit_bias(api):
    """logit_bias forces a token at 100 and bans it at -100"""
    ids = api.post("/tokenize", {"model": STORY, "prompt": " fox"}).json()["tokens"]
    forced = api.completions.create(prompt=OPENING, logit_bias={str(ids[0]): 100}, **{**GREEDY, "max_tokens": 4})
    piece = api.post("/detokenize", {"model": STORY, "tokens": ids[:1]}).json()["prompt"]
    equal(text_of(forced), piece * 4)
    usual = text_of(api.completions.create(prompt=OPENING, **{**GREEDY, "max_tokens": 1}))
    first = api.post("/tokenize", {"model": STORY, "prompt": usual}).json()["tokens"][0]
    banned = api.completions.create(prompt=OPENING, logit_bias={str(first): -100}, **{**GREEDY, "max_tokens": 1})
    check(text_of(banned) != usual, usual)


@case
def unlikely_settings(api):
    """penalties, top_p, top_k, min_p and the model's own fields are taken through extra_body"""
    reply = api.chat.create(messages=QUESTION, **{**GREEDY, "temperature": 0.8}, top_p=0.9, presence_penalty=0.5,
                            frequency_penalty=0.5, seed=1, user="somebody", metadata={"a": "b"}, store=False,
                            extra_body={"top_k": 20, "min_p": 0.02, "repetition_penalty": 1.1, "min_tokens": 4})
    check(text_of(reply), reply)


@case
def content_forms(api):
    """a message's text may come as parts; a developer is a system; a conversation goes on"""
    plain = api.chat.create(messages=QUESTION, **GREEDY)
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
    equal(text_of(api.chat.create(messages=parts, **GREEDY)), text_of(plain))
    talk = [{"role": "developer", "content": "You write short stories."}, *QUESTION,
            {"role": "assistant", "content": "A fox slept."}, {"role": "user", "content": "Go on."}]
    check(text_of(api.chat.create(messages=talk, **GREEDY)), "an empty answer")
    with raises(Exception, param="messages[0].content[0]"):
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        api.chat.create(messages=[{"role": "user", "content": [image]}], **GREEDY)


@case
def predicted_output(api):
    """a predicted output changes nothing but the speed, and the usage says how many guesses were right"""
    asked = {"messages": QUESTION, **GREEDY, "max_tokens": 100}
    plain = api.chat.create(extra_body={"num_speculative_tokens": 0}, **asked)
    equal(plain.usage.completion_tokens_details, None, "details without guesses")
    text = text_of(plain)
    predicted = api.chat.create(prediction={"type": "content", "content": text}, **asked)
    equal(text_of(predicted), text)
    details = predicted.usage.completion_tokens_details
    check(details.accepted_prediction_tokens > 40, details)
    check(details.rejected_prediction_tokens >= 0, details)
    parts = [{"type": "text", "text": text[:40]}, {"type": "text", "text": text[40:]}]
    equal(text_of(api.chat.create(prediction={"type": "content", "content": parts}, **asked)), text)
    for wrong in ({"type": "other", "content": text}, {"type": "content"}, {"type": "content", "content": 1}):
        with raises(openai.BadRequestError, says="prediction"):
            api.chat.create(prediction=wrong, **asked)


@case
def embeddings(api):
    """vectors of the length 1, the same as base64 (which the client asks for by itself) and as numbers"""
    texts = ["Once upon a time", "A bear"]
    both = api.client.embeddings.create(model=STORY, input=texts)
    equal([item.index for item in both.data], [0, 1])
    for item in both.data:
        check(abs(sum(x * x for x in item.embedding) - 1.0) < 1e-4, "the length is not 1")
    numbers = api.client.embeddings.create(model=STORY, input=texts[1], encoding_format="float").data[0].embedding
    check(max(abs(a - b) for a, b in zip(numbers, both.data[1].embedding)) < 0.02, "alone it is another vector")
    shorter = api.client.embeddings.create(model=STORY, input=texts, dimensions=8)
    equal([len(item.embedding) for item in shorter.data], [8, 8])
    equal(both.usage.prompt_tokens, both.usage.total_tokens)
