"""Small Python functions, written by a grammar: the text that models/inferneo-code learns from.

A function is a signature, a docstring and a body; every one of them parses, and the unit test of this file runs a sample
of them. Families of functions stand in text_code_families.py. Combinations whose name's hash falls on HELD_OUT
never reach training: the held-out loss is taken on them.
"""
import ast
import random
import zlib

from text_code_families import FAMILIES

HELD_OUT = 20
REQUESTS = ["Write a function that {task}.", "Write a Python function that {task}.", "Please write a function that {task}.",
            "Can you write a function that {task}?", "I need a Python function that {task}.", "write a function that {task}",
            "Write a function called {name} that {task}.", "Write {name}, a function that {task}."]
SYSTEMS = ["You are a programmer.", "You are a helpful assistant.", "You write Python functions."]
SMALL_TALK = [
    (["Hello!", "Hi!", "Hello", "Hi"], ["Hello! Which function shall I write?", "Hi! Ask me for a small Python function."]),
    (["Who are you?", "What are you?", "What can you do?"],
     ["I am a very small language model. I write short Python functions.",
      "I am the small code model that comes with Inferneo. Ask me for a Python function!"]),
    (["Thank you!", "Thanks!"], ["You are welcome! Shall I write another function?"]),
]
COMMENTS = ["# {summary}\n", "# A function that {task}.\n"]


class Function:
    """name, parameters with types, the return type, what it does in the third person, and lines of body."""

    def __init__(self, name, params, returns, task, body):
        self.name, self.params, self.returns, self.task, self.body = name, params, returns, task, body

    def held_out(self):
        combined = any(part in self.name for part in ("_of_", "_with_", "get_"))  # the well-known names are all learnt
        return combined and zlib.crc32(self.name.encode()) % HELD_OUT == 0

    def summary(self):
        verb, _, rest = self.task.partition(" ")
        if verb.endswith("ies"):
            verb = verb[:-3] + "y"
        elif verb.endswith("sses") or verb.endswith("shes") or verb.endswith("ches"):
            verb = verb[:-2]
        else:
            verb = verb[:-1]
        return (verb + " " + rest)[0].upper() + (verb + " " + rest)[1:] + "."

    def source(self, typed, documented):
        params = ", ".join(f"{name}: {kind}" if typed else name for name, kind in self.params)
        arrow = f" -> {self.returns}" if typed else ""
        lines = [f"def {self.name}({params}){arrow}:"]
        if documented:
            lines.append(f'    """{self.summary()}"""')
        lines += ["    " + line for line in self.body]
        return "\n".join(lines) + "\n"


def draw(rng, held_out=False):
    families = list(FAMILIES.values())
    while True:
        function = rng.choices([make for make, _ in families], [weight for _, weight in families])[0](rng)
        function = Function(*function)
        if function.held_out() == held_out:
            return function


def source(function, rng):
    return function.source(typed=rng.random() < 0.5, documented=rng.random() < 0.85)


def as_chat(function, rng):
    messages = []
    if rng.random() < 0.25:
        messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
    if rng.random() < 0.08:
        asked, answered = rng.choice(SMALL_TALK)
        messages += [{"role": "user", "content": rng.choice(asked)}, {"role": "assistant", "content": rng.choice(answered)}]
        if rng.random() < 0.4:
            return messages
    request = rng.choice(REQUESTS).format(task=function.task, name=function.name)
    answer = "```python\n" + source(function, rng) + "```"
    messages += [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    return messages


def document(rng, held_out=False):
    """A file of one to three functions, or a chat that asks for one."""
    if rng.random() < 0.4:
        return as_chat(draw(rng, held_out), rng)
    parts = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        function = draw(rng, held_out)
        comment = rng.choice(COMMENTS).format(task=function.task, summary=function.summary()) if rng.random() < 0.2 else ""
        parts.append(comment + source(function, rng))
    return "\n\n".join(parts)


def warm_up(rng):
    """What training begins with: a single function, whose parameters come back in its body."""
    return source(draw(rng), rng)


if __name__ == "__main__":
    import sys
    generator = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    for _ in range(20):
        function = draw(generator)
        ast.parse(source(function, generator))
        print(source(function, generator), end="\n\n")
