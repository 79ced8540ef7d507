"""What the Python tests stand on: the extension, the bundled models under the names that documents use, coroutine tests."""
import asyncio
import json
import os
import pathlib
import shutil
import signal

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
inferneo = pytest.importorskip("inferneo", reason="no Python extension (cmake -DINFERNEO_PYTHON=ON, PYTHONPATH=build/dev/python)")

TIMEOUT = 240.0  # seconds for a coroutine test, on a loaded machine

# Who is started in the background by a shell ignores Ctrl-C, and so do all that it starts: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def scaled(count, least):
    """The count of a soak test, as the C++ ones scale theirs."""
    return max(least, int(count * float(os.environ.get("INFERNEO_SOAK_SCALE", "0.02"))))


def pytest_pyfunc_call(pyfuncitem):
    if not asyncio.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**arguments), TIMEOUT))
    return True


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """Nothing of the user's own environment counts, and nothing of it is written."""
    for name in list(os.environ):
        if name.startswith("INFERNEO_") and name != "INFERNEO_SOAK_SCALE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("INFERNEO_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setenv("INFERNEO_HUB_OFFLINE", "true")


@pytest.fixture
def settings():
    """Of small engines on few threads."""
    return {"max_memory_gb": 0.25, "num_threads": 2, "max_num_batched_tokens": 256}


@pytest.fixture
def story():
    return str(ROOT / "models" / "inferneo-story")


@pytest.fixture
def code():
    return str(ROOT / "models" / "inferneo-code")


@pytest.fixture
def draft():
    """The smallest of the bundled ones."""
    return str(ROOT / "models" / "inferneo-story-draft")


def copy_model(source, target, max_position_embeddings=None):
    shutil.copytree(source, target)
    if max_position_embeddings is not None:
        config = target / "config.json"
        content = json.loads(config.read_text())
        content["max_position_embeddings"] = max_position_embeddings
        config.write_text(json.dumps(content))


@pytest.fixture
def hub_cache(tmp_path, monkeypatch, story):
    """A hub cache of the standard layout in which a bundled model stands under a name that documents use."""
    commit = "0" * 39 + "1"
    repository = tmp_path / "hf" / "hub" / "models--meta-llama--Llama-2-7b-chat-hf"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    copy_model(story, repository / "snapshots" / commit, max_position_embeddings=4096)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return repository


@pytest.fixture
def working_folder(tmp_path, monkeypatch, story, code):
    """A folder with models/gpt-3.5-turbo and models/code-llama, as the documents' paths want it."""
    copy_model(story, tmp_path / "work" / "models" / "gpt-3.5-turbo")
    copy_model(code, tmp_path / "work" / "models" / "code-llama")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"
