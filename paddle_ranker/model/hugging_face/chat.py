"""Read and write the chat template of a reranker that is a decoder, and the instruction in it.

A template is a program in Jinja of the model's author. It is run as transformers runs it, in Jinja's sandbox, but in a
process of its own with limits of time and memory; the result is compared with the chat of `InstructedPairEncoder`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Optional

from paddle_ranker.encoding.pair_encoder import INSTRUCTION, chat_of
from paddle_ranker.encoding.tokenizers.tokenizer_folder import CONFIG_FILE, read_settings, token_text
from paddle_ranker.errors import CheckpointError, brief
from paddle_ranker.storage.untrusted import Unchecked, read_file

TEMPLATE_FILE = "chat_template.jinja"
_SECONDS = 20  # most that the process may take; Jinja is imported in a tenth of a second
_MOST_BYTES = 256 * 1024  # largest template
_RENDER = """
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, ValueError):
    pass
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

def refuse(message):
    raise TemplateError(message)

given = json.load(sys.stdin)
environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
)
environment.filters["tojson"] = lambda value, indent=None, **_: json.dumps(value, ensure_ascii=False, indent=indent)
environment.globals.update(raise_exception=refuse, strftime_now=lambda form: "")
template = environment.from_string(given["template"])
shared = {"tools": None, "documents": None, "add_generation_prompt": False, **given["tokens"]}
print(json.dumps([template.render(messages=messages, **shared) for messages in given["chats"]]))
"""
_Message = dict[str, str]
_PROBES = (  # instruction ("": none is given), query, document; a template may change each
    ("", "q", "d"),
    ("", " two  words\n", "<b>&amp; \"x\" 'y'</b>\n\n"),
    ("Find \u6cd5 <laws>", "", ""),
    ("i" * 90, "\t" + "query " * 40, "document " * 90),
)


def stated_instruction(folder: Path, needs_one: bool) -> Optional[str]:
    """Return the instruction that a folder's chat template gives pairs for which none is given.

    Returns None if there is no template, or if its chat has no place for a query and a document.

    needs_one: whether the folder's pairs are put into the chat

    Raises `CheckpointError` if the chat is not that of Qwen3-Reranker, or if there is none and `needs_one`.
    """
    template = _template(folder)
    other = (
        f"{folder / TEMPLATE_FILE}: pairs are put into the chat of Qwen3-Reranker here, and this model was trained "
        "with another; take one of Qwen/Qwen3-Reranker's"
    )
    if template is None:
        if needs_one:
            raise CheckpointError(f"{other} (the folder has no chat template)")
        return None
    chats = [
        [{"role": role, "content": text} for role, text in zip(("system", "query", "document"), probe)][not probe[0] :]
        for probe in _PROBES
    ]
    try:
        found = _rendered(template, chats, folder)
    except CheckpointError as error:
        if needs_one:
            raise CheckpointError(f"{other} ({error})") from None
        return None
    if not needs_one and not all(text in found[3] for text in _PROBES[3][1:]):
        return None
    before, after = chat_of("\0", "q", "d").split("\0")
    instruction = found[0][len(before) : len(found[0]) - len(after)]
    wanted = [chat_of(given or instruction, query, document) for given, query, document in _PROBES]
    if found != wanted:
        place = next(place for place, (one, two) in enumerate(zip(found, wanted)) if one != two)
        raise CheckpointError(f"{other} (it makes {brief(repr(found[place]))} of a pair)")
    return instruction


def _template(folder: Path) -> Optional[str]:
    """Return the chat template of a folder, None if it has none; a file takes precedence in transformers."""
    if (folder / TEMPLATE_FILE).is_file():
        return read_file(folder / TEMPLATE_FILE, _MOST_BYTES).decode("utf-8", "replace")
    stated: Unchecked = read_settings(folder / CONFIG_FILE).get("chat_template")
    if isinstance(stated, list):  # several, by their names
        named = [entry for entry in stated if isinstance(entry, dict)]
        stated = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    if stated is not None and not isinstance(stated, str):
        raise CheckpointError(f"{folder / CONFIG_FILE}: chat_template is no text; copy it again")
    return stated


def _rendered(template: str, chats: list[list[_Message]], folder: Path) -> list[str]:
    """Return the texts of chats; raises `CheckpointError` if the template fails, or does not end in time."""
    settings = read_settings(folder / CONFIG_FILE)
    roles = (name for name, value in settings.items() if name.endswith("_token") and isinstance(value, (str, dict)))
    tokens = {role: token_text(settings[role], role, folder) for role in roles}
    given = json.dumps({"template": template, "chats": chats, "tokens": tokens})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _RENDER], input=given, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"its template does not end within {_SECONDS} seconds") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise CheckpointError(f"its template fails: {brief(lines[-1] if lines else str(done.returncode))}")
    found: list[str] = json.loads(done.stdout)
    return found


def write_template(folder: Path, instruction: str) -> None:
    """Write the chat of a ranker, as a template into which transformers and sentence-transformers put pairs."""
    places = {role: f'messages | selectattr("role", "eq", "{role}") | map(attribute="content") | first' for role in (
        "system", "query", "document")}  # fmt: skip
    system = f"{places['system']} | default({json.dumps(instruction or INSTRUCTION, ensure_ascii=False)})"
    query, document = (f"{{{{ {places[role]} }}}}" for role in ("query", "document"))
    # Jinja removes the last line's end.
    text = chat_of(f"{{{{ {system} }}}}", query, document) + "\n"
    (folder / TEMPLATE_FILE).write_text(text, encoding="utf-8")
