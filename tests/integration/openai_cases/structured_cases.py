"""Tools and structured output, with the helpers of the official client."""

import enum
import json
from typing import Literal

import openai
import pydantic

from .harness import QUESTION, STORY, case, check, equal, raises, text_of

ASK = {"model": STORY, "messages": QUESTION, "temperature": 0.7, "seed": 3, "max_tokens": 200}


class Weather(pydantic.BaseModel):
    """Tells the weather of a city."""

    city: Literal["Ulm", "Bonn"]
    days: Literal[1, 2, 3]


class Clock(pydantic.BaseModel):
    """Tells the time."""

    zone: Literal["UTC", "CET"]


# A tiny model does not know when to stop calling.
ONE_CALL = {"parallel_tool_calls": False}
TOOLS = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]
KINDS = {"Weather": Weather, "Clock": Clock}
NAMED = {"type": "function", "function": {"name": "Clock"}}


def check_calls(choice, names):
    equal(choice.finish_reason, "tool_calls")
    calls = choice.message.tool_calls
    check(calls and not choice.message.content, choice)
    equal(len({call.id for call in calls}), len(calls), "ids of calls")
    for call in calls:
        equal(call.type, "function")
        check(call.function.name in names, call)
        KINDS[call.function.name].model_validate_json(call.function.arguments)


@case
def tools_required(api):
    """tool_choice required: at least one call, of a known function, with arguments that fit its schema"""
    for seed in range(4):
        asked = {**ASK, "seed": seed, "tools": TOOLS, "tool_choice": "required"}
        choice = api.chat.create(**asked, **ONE_CALL).choices[0]
        check_calls(choice, KINDS)
        equal(len(choice.message.tool_calls), 1, "parallel_tool_calls=False")
        choice = api.chat.create(**asked).choices[0]
        if choice.finish_reason == "length":  # in the middle of a further call
            check(len(choice.message.tool_calls) > 1, choice)
            del choice.message.tool_calls[-1]
            choice.finish_reason = "tool_calls"
        check_calls(choice, KINDS)


@case
def tools_named(api):
    """a named function is the one that is called, once"""
    reply = api.chat.create(**ASK, tools=TOOLS, tool_choice=NAMED)
    check_calls(reply.choices[0], ["Clock"])
    equal(len(reply.choices[0].message.tool_calls), 1)


@case
def tools_none_and_auto(api):
    """tool_choice none never calls; auto either calls well or answers; both know the conversation's earlier calls"""
    none = api.chat.create(**ASK, tools=TOOLS, tool_choice="none")
    equal(none.choices[0].message.tool_calls, None)
    check(none.choices[0].finish_reason in ("stop", "length"), none)
    auto = api.chat.create(**ASK, tools=TOOLS, tool_choice="auto")
    if auto.choices[0].message.tool_calls:
        check_calls(auto.choices[0], KINDS)
    else:
        check(auto.choices[0].message.content and auto.choices[0].finish_reason in ("stop", "length"), auto)
    call = {"id": "call_1", "type": "function", "function": {"name": "Clock", "arguments": '{"zone": "UTC"}'}}
    talk = [*QUESTION, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "12:00"}]
    check(api.chat.create(**{**ASK, "messages": talk}, tools=TOOLS).choices[0], "no answer to a tool's result")
    rendered = api.post("/tokenize", {"model": STORY, "messages": QUESTION, "tools": TOOLS}).json()
    text = api.post("/detokenize", {"model": STORY, "tokens": rendered["tokens"]}).json()["prompt"]
    check('"Weather"' in text and '"Clock"' in text, "the template does not tell of the tools")


@case
def tools_streamed(api):
    """streamed calls, put together, are the ones of the whole answer: name and id first, then the arguments"""
    for choice in ("required", NAMED):
        asked = {**ASK, "tools": TOOLS, "tool_choice": choice, **ONE_CALL}
        whole = api.chat.create(**asked).choices[0].message.tool_calls
        calls, finish = {}, None
        for chunk in api.chat.create(stream=True, **asked):
            finish = chunk.choices[0].finish_reason or finish
            check(not chunk.choices[0].delta.content, "content beside a forced call")
            for part in chunk.choices[0].delta.tool_calls or []:
                if part.index not in calls:
                    check(part.id and part.type == "function" and part.function.name, f"the first part {part}")
                    calls[part.index] = [part.function.name, ""]
                else:
                    equal((part.id, part.function.name), (None, None), "a later part")
                calls[part.index][1] += part.function.arguments or ""
        equal(finish, "tool_calls")
        equal([calls[i] for i in sorted(calls)], [[c.function.name, c.function.arguments] for c in whole])


@case
def tools_by_stream_helper(api):
    """the client's own stream() assembles the calls and checks their arguments"""
    with api.chat.stream(**ASK, tools=TOOLS, tool_choice="required", **ONE_CALL) as stream:
        names = [event.name for event in stream if event.type == "tool_calls.function.arguments.done"]
        message = stream.get_final_completion().choices[0].message
    equal(names, [call.function.name for call in message.tool_calls])
    for call in message.tool_calls:
        check(isinstance(call.function.parsed_arguments, tuple(KINDS.values())), call)


class Mood(enum.Enum):
    HAPPY = "happy"
    SAD = "sad"


class Home(pydantic.BaseModel):
    kind: Literal["den", "burrow"]
    deep: bool


class Fox(pydantic.BaseModel):
    mood: Mood
    age: Literal[1, 2, 3]
    homes: list[Home] = pydantic.Field(max_length=2)


def parse_of(api):
    """parse() left the beta in the client's later versions."""
    return getattr(api.chat, "parse", None) or api.client.beta.chat.completions.parse


@case
def schema_parsed(api):
    """a pydantic class as response_format comes back as an object of that class, also at temperature 1.5"""
    for temperature in (0, 1.5):
        reply = parse_of(api)(**{**ASK, "temperature": temperature}, response_format=Fox)
        equal(reply.choices[0].finish_reason, "stop")
        check(isinstance(reply.choices[0].message.parsed, Fox), reply)


@case
def schema_streamed(api):
    """JSON by a schema, streamed, is the JSON of the whole answer"""
    schema = {"type": "json_schema", "json_schema": {"name": "home", "strict": True, "schema": {
        "type": "object", "properties": {"deep": {"type": "boolean"}}, "required": ["deep"],
        "additionalProperties": False}}}
    whole = api.chat.create(**ASK, response_format=schema).choices[0].message.content
    check(isinstance(json.loads(whole)["deep"], bool), whole)
    chunks = api.chat.create(stream=True, **ASK, response_format=schema)
    equal("".join(chunk.choices[0].delta.content or "" for chunk in chunks), whole)
    text = text_of(api.completions.create(model=STORY, prompt="JSON:", seed=1, max_tokens=64,
                                          extra_body={"response_format": schema}))
    check(isinstance(json.loads(text)["deep"], bool), text)


@case
def json_object(api):
    """json_object gives an object whenever the answer ends by itself"""
    ended = 0
    for seed in range(4):
        reply = api.chat.create(**{**ASK, "seed": seed, "max_tokens": 400}, response_format={"type": "json_object"})
        if reply.choices[0].finish_reason == "stop":
            ended += 1
            check(isinstance(json.loads(reply.choices[0].message.content), dict), reply)
        else:
            check(reply.choices[0].message.content.lstrip()[:1] == "{", reply)
    check(ended > 0, "none of four answers ended")


@case
def other_constraints(api):
    """choices, regular expressions and structured_outputs by vLLM's names"""

    def constrained(**body):
        return text_of(api.chat.create(**{**ASK, "temperature": 1}, extra_body=body))

    animals = ["red fox", "grey wolf"]
    for text in (constrained(structured_outputs={"choice": animals}), constrained(guided_choice=animals)):
        check(text in animals, text)
    text = constrained(structured_outputs={"regex": "[0-9]{3}-[a-f]{2}"})
    check(len(text) == 6 and text[:3].isdigit() and text[3] == "-" and set(text[4:]) <= set("abcdef"), text)


@case
def broken_schemas(api):
    """schemas and tools that cannot be are a 400 that names the field"""
    broken = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strange"}}}
    with raises(openai.BadRequestError, param="response_format"):
        api.chat.create(**ASK, response_format=broken)
    with raises(openai.BadRequestError, param="tool_choice"):
        api.chat.create(**ASK, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "Absent"}})
    with raises(openai.BadRequestError, param="tools[0].function.name"):
        api.chat.create(**ASK, tools=[{"type": "function", "function": {"name": "no spaces"}}])
