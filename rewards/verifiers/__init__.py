"""The ways an answer can be judged: `Task.verifier` names a row of `VERIFIERS`."""

from __future__ import annotations

from rewards.verifiers.asserts import AssertsVerifier
from rewards.verifiers.base import GroupVerifier, ProgramVerifier
from rewards.verifiers.checker import CheckerVerifier
from rewards.verifiers.custom import CustomVerifier
from rewards.verifiers.function import FunctionVerifier
from rewards.verifiers.literal import LiteralVerifier
from rewards.verifiers.math import MathVerifier
from rewards.verifiers.project import ProjectVerifier
from rewards.verifiers.stdio import StdioVerifier
from rewards.verifiers.unit_tests import UnitTestsVerifier

VERIFIERS: dict[str, ProgramVerifier | GroupVerifier] = {
    "function": FunctionVerifier(),
    "asserts": AssertsVerifier(),
    "stdio": StdioVerifier(),
    "checker": CheckerVerifier(),
    "unit_tests": UnitTestsVerifier(),
    "project": ProjectVerifier(),
    "custom": CustomVerifier(),
    "math": MathVerifier(),
    "literal": LiteralVerifier(),
}
