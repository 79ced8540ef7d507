"""Every Python block of the documents runs as it stands, from the repository's root, one after the other."""
import ast
import inspect
import re

import pytest
from conftest import ROOT

DOCUMENTS = ["docs/python.md", "README.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_every_block_runs(document, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / document).read_text()
    blocks = list(BLOCK.finditer(text))
    assert blocks, "a document without a block proves nothing"
    names = {"__name__": "document"}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        code = compile("\n" * line + block.group(1), document, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result
