"""The ways an answer can be judged: `Task.verifier` names a row of `VERIFIERS`."""

from __future__ import annotations

from rewards.verifiers.asserts import AssertsVerifier
from rewards.verifiers.base import GroupVerifier, ProgramVerifier
from rewards.verifiers.custom import CustomVerifier
from rewards.verifiers.function import FunctionVerifier

VERIFIERS: dict[str, ProgramVerifier | GroupVerifier] = {
    "function": FunctionVerifier(),
    "asserts": AssertsVerifier(),
    "custom": CustomVerifier(),
}
