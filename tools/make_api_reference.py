"""Writes docs/api.md, the reference of the Python package, from its signatures, docstrings and field tables.

  PYTHONPATH=build/dev/python python tools/make_api_reference.py [--check]

--check: nothing is written; exits 1 when the file is not current.
"""
import argparse
import inspect
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEAD = """# Python API

Made by `tools/make_api_reference.py` from the package itself; [python.md](python.md) is the manual. Everything here can be
imported from the module that its heading names. Fields of plain data are keyword arguments of their class
and attributes of its objects; fields of results can be read alone.
"""
# What users import, by module.
MODULES = {
    "inferneo.core.engine": ("InferneoEngine", "SamplingParams", "GenerationStream", "GenerationChunk", "GenerationResult"),
    "inferneo": ("LLM", "GenerationSample", "TokenLogprob", "bundled_model", "set_log_level"),
    "inferneo.core.config": ("EngineConfig",),
    "inferneo.core.enhanced_engine": ("EnhancedInferneoEngine", "RequestOptions", "RoutingRule", "RoutingOptions", "RoutingCandidate",
                                      "RoutingRefusal", "ABTestConfig", "ABTestArm", "ABTestRampStep", "ABTestGuardrails",
                                      "SamplingOverrides", "ShadowConfig"),
    "inferneo.models.manager": ("ModelManager", "Model", "ModelInfo", "ModelFormat", "ModelRegistration"),
    "inferneo.models.transformers": ("TransformersModel",),
    "inferneo.models.onnx": None,  # whatever it exports
    "inferneo.models.tensorrt": None,
}


def cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ")


def doc_of(thing):
    """A docstring as Markdown: sections as bold words, examples as text."""
    text = inspect.cleandoc(inspect.getdoc(thing) or "")
    text = "\n".join(line for line in text.splitlines() if not line.startswith(">>>"))
    text = re.sub(r"^(Args|Raises|Returns|Attributes):[ ]*", r"**\1:** ", text, flags=re.M)
    text = re.sub(r"\n {4}(\*{0,2}\w[\w, *]*): ", r"\n- `\1`: ", text)
    text = re.sub(r"\n {8}", "\n  ", re.sub(r"\n {4}(?=\S)", "\n", text))
    return re.sub(r"(\*\*\w+:\*\* ?)\n(?=- )", r"\1\n\n", text).replace("``", "`").strip()


def signature_of(name, function):
    try:
        text = str(inspect.signature(function))
    except (TypeError, ValueError):
        return f"{name}(...)"
    text = re.sub(r"= '([^']*)'", r'= "\1"', text)
    text = re.sub(r", \*\*unknown: '?NoReturn'?|\bself, |\bself\b|'|~|<object object at \w+>", "", text)
    text = re.sub(r"(_native|_generation|np)\.", "", text).replace("RequestOptions(model=, user=, session=, headers={}, forced_arm=)", "None")
    return f"{'await ' if inspect.iscoroutinefunction(function) else ''}{name}{text}"


def data_class(name, cls):
    if not cls.__made_by_users__:
        lines = [f"### {name}\n\n{cls.__doc__}\n\n| field | type | |\n|---|---|---|"]
        lines += [f"| `{field}` | `{cell(kind)}` | {cell(doc)} |" for field, kind, doc in cls.__fields__]
    else:
        lines = [f"### {name}\n\n{cls.__doc__}\n\n| field | type | default | |\n|---|---|---|---|"]
        lines += [f"| `{field}` | `{cell(kind)}` | `{cell(repr(cls.__defaults__[field]))}` | {cell(doc)} |"
                  for field, kind, doc in cls.__fields__]
    if name == "GenerationResult":
        lines.append("| `text` | `str` | The first sample's text. |")
        lines.append(f"| `prompt_rows` | `NDArray[float32] \\| None` | {cell(cls.prompt_rows.__doc__)} |")
    return "\n".join(lines) + "\n"


def members_of(cls):
    """Public ones, of the class and of the package's classes above it, in the order of their writing."""
    seen = {}
    for base in cls.__mro__:
        if base.__module__.startswith("inferneo") and base.__name__ != "OwnedByProcess":
            for name, member in vars(base).items():
                if not name.startswith("_") and name != "end":
                    seen.setdefault(name, member)
    return seen


def written_class(name, cls):
    lines = [f"### {name}\n"]
    if not issubclass(cls, BaseException):
        lines.append(f"`{signature_of(name, cls)}`\n")
    lines.append(doc_of(cls) + "\n")
    for member_name, member in members_of(cls).items():
        if isinstance(member, property):
            lines.append(f"**`{member_name}`**: {doc_of(member)}\n")
        elif callable(getattr(cls, member_name)):
            function = getattr(cls, member_name)
            lines.append(f"**`{signature_of(member_name, function)}`**\n\n{doc_of(function)}\n")
    return "\n".join(lines)


def entry(name, thing):
    if hasattr(thing, "__fields__"):
        return data_class(name, thing)
    if inspect.isclass(thing) and hasattr(thing, "__members__"):
        return f"### {name}\n\n{thing.__doc__}: {', '.join(f'`{member}`' for member in thing.__members__)}.\n"
    if inspect.isclass(thing):
        return written_class(name, thing)
    return f"### {name}\n\n`{signature_of(name, thing)}`\n\n{doc_of(thing)}\n"


def errors_table():
    from inferneo import errors

    lines = ["## inferneo.errors\n", doc_of(errors.InferneoError) + "\n", "| class | also | code | |\n|---|---|---|---|"]
    for name in errors.__all__[1:]:
        cls = getattr(errors, name)
        also = ", ".join(f"`{base.__name__}`" for base in cls.__bases__ if base is not errors.InferneoError)
        lines.append(f"| `{name}` | {also} | `{cls.code}` | {cell(doc_of(cls))} |")
    return "\n".join(lines) + "\n"


def reference():
    import importlib

    parts = [HEAD]
    for module_name, names in MODULES.items():
        module = importlib.import_module(module_name)
        parts.append(f"## {module_name}\n\n{inspect.cleandoc(module.__doc__ or '').splitlines()[0]}\n")
        for name in names or module.__all__:
            thing = getattr(module, name)
            parts.append(entry(name, thing))
    parts.append(errors_table())
    return "\n".join(textwrap.dedent(part).strip() + "\n" for part in parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    path = ROOT / "docs" / "api.md"
    text = reference()
    if not check:
        path.write_text(text)
    elif not path.is_file() or path.read_text() != text:
        print("docs/api.md is not current: run tools/make_api_reference.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
