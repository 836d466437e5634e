"""How tasks made from published sets are worded: one code block asked for, programs shown in fences."""

from __future__ import annotations

from assay.types import Message

WHOLE = "Answer with the whole program in one {label} code block."


def asked(prompt: str, language: str) -> tuple[Message, ...]:
    """The conversation that asks for a program in one block."""
    return (Message(role="user", content=f"{prompt}\n\n{WHOLE.format(label=language)}"),)


def block(language: str, program: str) -> str:
    """A program in a fence that it cannot close."""
    fence = "````" if "```" in program else "```"
    return f"{fence}{language}\n{program.strip(chr(10))}\n{fence}"
