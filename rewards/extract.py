"""Completion text -> program: the last fenced block of the wanted language, or the last that names each wanted file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from rewards.languages import Language

# An opening fence, its label, and everything up to a closing fence of at least its length; a block that the length
# limit cut off runs to the end of the text. Backticks that are closed on their own line open nothing ("```pip install
# x```" is text); a single one beside the label ("```python `main.py`") does no harm, though CommonMark has it so.
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}+(?![^\n]*```)|~{3,})[ \t]*(?P<label>[^\s`]*)[^\n]*\n"
    r"(?P<body>.*?)(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
#: words that may be a path, in an info string, a line before a block or a comment
_WORD = re.compile(r"[\w.+/-]+")
#: a first line that says no more than a path: "// acronym.h", "# file: src/a.py", "/* acronym.c */", "<!-- a.html -->"
_NAMED = re.compile(
    r"[ \t]*(?://+|#+|--+|;+|%+|/\*+|<!--|\(\*|\"{3})[ \t]*(?:(?:file|filename|path)[ \t]*[:=]?[ \t]*)?"
    r"[`'\"*]*(?P<path>[\w.+/-]+?)[`'\"*]*:?[ \t]*(?:\*+/|-->|\*\)|\"{3})?[ \t]*",
    re.IGNORECASE,
)
#: a line that is a path but for decoration: "**twice.sh**", "### `src/a.py`:", "File: twice.sh", "In `twice.sh`:"
_TITLE = re.compile(
    r"[\s>#*_`\"'-]*(?:\d+[.)]\s+)?[*_`]*(?:(?:in|file|filename|path|the file)\b[ \t]*[:=]?)?[\s*_`\"']*"
    r"(?P<path>[\w.+/-]+?)[\s*_`\"':]*",
    re.IGNORECASE,
)
_SHELL, _CHANGES = ("", ".sh", ".bash", ".bats", ".zsh"), ("", ".diff", ".patch")
#: label of what answers show beside their files, how they are compiled and what changed -> suffixes of what it may be
_BESIDE = {
    **dict.fromkeys(("bash", "sh", "shell", "zsh", "console", "shell-session", "shellsession"), _SHELL),
    **dict.fromkeys(("diff", "patch"), _CHANGES),
}
_DECORATED = re.compile(r"[,:{]")  #: where a label ends and what is said beside it begins: "python:solution.py"


class NoProgram(ValueError):
    """Why there is no program in an answer."""


def program_of(text: str, language: Language, *, whole_text: bool = False) -> str | None:
    """The program in a completion, or None where there is none.

    The last block labelled with the language or one of its aliases wins; else the last whose label begins with one
    ("python:solution.py", "rust,no_run"); else the last block without a label; else, only with `whole_text`, the text
    itself. A block of blanks is no program.
    """
    labelled, decorated, bare = None, None, None
    names = (language.name, *language.aliases)
    for match in _FENCE.finditer(text.replace("\r\n", "\n")):
        label, body = match["label"].lower().strip("{}.:,"), match["body"]
        if not body.strip():
            continue
        if label in names:
            labelled = _shifted(body, match["indent"])
        elif _DECORATED.split(label)[0] in names:
            decorated = _shifted(body, match["indent"])
        elif not label:
            bare = _shifted(body, match["indent"])
    found = next((block for block in (labelled, decorated, bare) if block is not None), None)
    if found is not None:
        return found
    return text if whole_text and text.strip() else None


def files_of(text: str, paths: Sequence[str]) -> dict[str, str]:
    """The files in a completion: path -> text, for those of `paths` that a block names.

    A block is named by its info string ("```c:acronym.h", "```python title=src/a.py"), by a first line that is a
    comment of the path alone, or by the line in front of it, at most one empty line away ("**acronym.h**", "In
    `acronym.h`:"). A name may lack the folders of a path where no other path ends so. The last block of a path wins;
    one of commands or changes behind it ("To compile `acronym.c`:") does not, where it is written in another language.
    """
    found: dict[str, str] = {}
    text = text.replace("\r\n", "\n")
    for match in _FENCE.finditer(text):
        body = match["body"]
        if not body.strip():
            continue
        info = match[0][: match[0].index("\n")].strip(" \t`~")
        before = text[: match.start()].removesuffix("\n").removesuffix("\n").rpartition("\n")[2]
        first = body.lstrip("\n").split("\n", 2)[:2]
        comments = [named["path"] for line in first if (named := _NAMED.fullmatch(line))]
        suffixes = _BESIDE.get(match["label"].lower())
        for words in (_WORD.findall(info), comments, _WORD.findall(before)):
            named_here = {path for word in words if (path := _path_of(word, paths))}
            if len(named_here) == 1:
                path = named_here.pop()
                if path not in found or suffixes is None or PurePosixPath(path).suffix in suffixes:
                    found[path] = _shifted(body, match["indent"])
                break
    return found


def file_of(text: str, path: str, given: Sequence[str], languages: Sequence[Language]) -> str | None:
    """The one file that a completion is to hold, or None.

    The last block that its info string, first comment, or a line of the path alone names after it; else what
    `program_of` finds; else `files_of`. Blocks named so after a given file are passed over, and behind the program
    those that only use it: three lines at most that mention one of the files, a session with a prompt ("$ "), or, in
    a shell, two lines behind more. One with a shebang is a program.
    """
    text = text.replace("\r\n", "\n")
    known = (path, *given)
    mentioned = re.compile(rf"(?<![\w.-])(?:{'|'.join(re.escape(each.rpartition('/')[2]) for each in known)})(?![\w-])")
    labels, shell = {label for each in languages for label in (each.name, *each.aliases)}, languages[-1].name == "bash"
    rest, named, longest, at = "", None, 0, 0
    for match in _FENCE.finditer(text):
        lines = [line for line in match["body"].split("\n") if line.strip()]
        before = text[: match.start()].removesuffix("\n").removesuffix("\n").rpartition("\n")[2]
        info = match[0][: match[0].index("\n")].strip(" \t`~")
        title = [found["path"]] if (found := _TITLE.fullmatch(before)) else []
        comments = [found["path"] for line in lines[:2] if (found := _NAMED.fullmatch(line))]
        name = next((one for word in (*_WORD.findall(info), *comments, *title) if (one := _path_of(word, known))), None)
        few = bool(len(lines) <= 3 and mentioned.search(match["body"])) or (shell and len(lines) <= 2 < longest)
        few = few or any(line.lstrip().startswith("$ ") for line in lines)
        # one that is labelled with a language other than a shell's, or named, is no note
        may_be = shell or match["label"].lower().strip("{}.:,") not in labels
        usage = longest > 0 and few and may_be and name != path and not match["body"].lstrip().startswith("#!")
        rest += text[at : match.start()]
        if not usage and (name is None or name == path):
            rest += match[0]
            longest = max(longest, len(lines))
            named = _shifted(match["body"], match["indent"]) if name and lines else named
        at = match.end()
    rest += text[at:]
    usual = (program_of(rest, language) for language in languages)
    return named or next(filter(None, usual), None) or files_of(rest, (path,)).get(path)


def as_answer(files: Mapping[str, str]) -> str:
    """Files as an answer names them, one block each; `files_of` finds the same in it."""
    blocks = []
    for path, text in files.items():
        fence = "`" * (1 + max([2, *(len(ticks) for ticks in re.findall("`+", text))]))
        blocks.append(f"{fence}{path}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}")
    return "\n\n".join(blocks)


def _path_of(word: str, paths: Sequence[str]) -> str | None:
    word = word.removeprefix("./").rstrip(".")
    if word in paths:
        return word
    ending = [path for path in paths if path.endswith(f"/{word}") or word.endswith(f"/{path}")]
    return ending[0] if word and len(ending) == 1 else None


def _shifted(body: str, indent: str) -> str:
    """A block without the indentation of its fence, as in an item of a list.

    Only what its first line has of that is taken away, from each line as far as it has it: a block that stands at the
    margin below an indented fence keeps the steps of its lines.
    """
    lines = body.split("\n")
    shift = _start(indent, next(line for line in lines if line.strip()))
    return "\n".join(line[len(_start(shift, line)) :] for line in lines)


def _start(indent: str, line: str) -> str:
    """As much of `indent` as `line` begins with."""
    return next(indent[:size] for size in range(len(indent), -1, -1) if line.startswith(indent[:size]))
