"""An entropy bonus whose coefficient seeks a target: Skywork-OR1 (arXiv 2505.22312)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bonus:
    """The coefficient c and what the policy's entropy H was at the last step. The loss gets -applied * H."""

    coefficient: float
    entropy: float = 0.0

    def applied(self, target: float | None) -> float:
        """c, but 0 while there is more entropy than wanted; with no target always c."""
        return self.coefficient if target is None or self.entropy <= target else 0.0

    def after(self, entropy: float, target: float | None, step: float, largest: float) -> Bonus:
        """c + step below the target, c - step above it, within [0, largest]; c itself where there is no target."""
        if target is None:
            return Bonus(self.coefficient, entropy)
        moved = self.coefficient + (step if entropy <= target else -step)
        return Bonus(min(max(moved, 0.0), largest), entropy)
