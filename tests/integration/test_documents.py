"""Every code block of the documents runs as it stands (document_blocks.py says how), or says in its source why not."""
import pathlib
import re
import shutil

import pytest
from conftest import ROOT

import inferneo
from document_blocks import Session, blocks_of, documents, run_document

LEAST = 50  # blocks that run, so that none of this proves nothing


def server_program():
    """Of the build that the package is of."""
    program = pathlib.Path(inferneo.__file__).parent.parent.parent / "inferneo"
    return program if program.is_file() else None


@pytest.mark.parametrize("document", [name for name in documents() if blocks_of(name)])
async def test_every_block_runs(document, monkeypatch, tmp_path):
    program = server_program()
    if program is None or shutil.which("curl") is None:
        pytest.skip("the program inferneo has not been built" if program is None else "there is no curl")
    monkeypatch.chdir(ROOT)
    session = Session(tmp_path / "session", program)
    try:
        await run_document(blocks_of(document), session, {"__name__": "document"})
    finally:
        session.close()


@pytest.mark.parametrize("document", documents())
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / document).read_text()):
        if not re.match(r"[a-z]+:", target):
            assert ((ROOT / document).parent / target).exists(), f"{document}: {target}"


def test_what_is_left_out_is_few_and_says_why():
    blocks = [block for name in documents() for block in blocks_of(name) if block.language != "hidden"]
    skipped = [block for block in blocks if block.skipped is not None]
    ran = len(blocks) - len(skipped)
    print(f"{ran} blocks run, {len(skipped)} do not:")
    for block in skipped:
        print(f"  {block.where}: {block.skipped}")
        assert len(block.skipped) > 20, f"{block.where}: a reason is a sentence"
    assert ran >= LEAST and len(skipped) <= ran / 4
