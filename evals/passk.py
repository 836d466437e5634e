"""pass@k without bias, its uncertainty, and the result of one evaluation as a JSON file.

A sample whose harness failed (INFRA) says nothing about the program: it is left out and counted.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from assay.errors import DataError
from assay.lineage import write_atomically
from assay.types import Verdict


class Sample(NamedTuple):
    """What became of one completion: the problem it answers, where that came from, the verdict."""

    task_id: str
    source: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRate:
    """k/n with its uncertainty. `rate` and `standard_error` are None when nothing could be scored."""

    passed: int
    scored: int
    infra: int
    problems: int  #: problems with at least one scored sample
    rate: float | None
    standard_error: float | None

    def to_dict(self) -> dict[str, Any]:
        out = asdict(self)
        out["pass@1"] = out.pop("rate")
        return out

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> PassRate:
        return cls(rate=row["pass@1"], **{key: value for key, value in row.items() if key != "pass@1"})

    def __str__(self) -> str:
        if self.rate is None:
            return f"not scored ({self.infra} INFRA)"
        infra = f", {self.infra} INFRA left out" if self.infra else ""
        return f"{self.rate:.1%} ± {self.standard_error:.1%} ({self.passed}/{self.scored}{infra})"


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Probability that one of k samples passes, estimated without bias from `passed` of `samples`.

    1 - C(n-c, k) / C(n, k): Chen et al. 2021 (arXiv 2107.03374), equation 1, computed exactly in integers.
    """
    if not 0 <= passed <= samples:
        raise DataError(f"pass@{k}: {passed} passed of {samples} samples; expected 0 <= passed <= samples")
    if not 1 <= k <= samples:
        raise DataError(f"pass@{k} needs at least {k} samples per problem, there are {samples}; lower k or sample more")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def mean_pass_at_k(samples: Iterable[Sample], k: int) -> float | None:
    """pass@k averaged over the problems that have at least k scored samples; None when there is none."""
    counts = [(len(verdicts), verdicts.count(Verdict.AC)) for verdicts in _by_problem(samples).values()]
    values = [pass_at_k(n, c, k) for n, c in counts if n >= k]
    return sum(values) / len(values) if values else None


def pass_at_1(samples: Iterable[Sample]) -> PassRate:
    """Share of the scored samples that pass, with its standard error over problems.

    The error is the cluster-robust one (Miller 2024, arXiv 2411.00640, equation 4): sqrt(sum_i r_i^2) / n, where
    r_i = passed_i - scored_i * rate is what problem i adds. Samples of one problem are not independent, and this
    says so; with one sample per problem it is the binomial sqrt(p (1 - p) / n).
    """
    samples = list(samples)
    problems = _by_problem(samples)
    scored = sum(len(verdicts) for verdicts in problems.values())
    infra = len(samples) - scored
    if not scored:
        return PassRate(passed=0, scored=0, infra=infra, problems=0, rate=None, standard_error=None)
    counts = [(len(verdicts), verdicts.count(Verdict.AC)) for verdicts in problems.values()]
    passed = sum(c for _, c in counts)
    rate = passed / scored
    error = math.sqrt(sum((c - n * rate) ** 2 for n, c in counts)) / scored
    return PassRate(passed=passed, scored=scored, infra=infra, problems=len(problems), rate=rate, standard_error=error)


def _by_problem(samples: Iterable[Sample]) -> dict[str, list[Verdict]]:
    problems: dict[str, list[Verdict]] = {}
    for sample in samples:
        if sample.verdict is not Verdict.INFRA:
            problems.setdefault(sample.task_id, []).append(Verdict(sample.verdict))
    return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One policy on the held-out tasks: decoded greedily, sampled, by source, and what the verdicts were."""

    name: str
    policy: str = ""  #: a digest of the weights; empty where nobody said
    greedy: PassRate | None = None
    sampled: PassRate | None = None
    pass_at: Mapping[int, float] = field(default_factory=dict)  #: k -> pass@k of the sampled completions
    by_source: Mapping[str, Mapping[str, PassRate]] = field(default_factory=dict)  #: source -> greedy/sampled -> rate
    verdicts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  #: greedy/sampled -> verdict -> count

    @classmethod
    def of(
        cls, name: str, greedy: Sequence[Sample] = (), sampled: Sequence[Sample] = (), ks: Sequence[int] = ()
    ) -> EvalResult:
        """Count the samples; `ks` asks for pass@k of the sampled ones besides pass@1."""
        modes = {mode: samples for mode, samples in (("greedy", greedy), ("sampled", sampled)) if samples}
        sources = sorted({s.source for samples in modes.values() for s in samples})
        by_source: dict[str, dict[str, PassRate]] = {}
        for source in sources:
            own = {mode: [s for s in samples if s.source == source] for mode, samples in modes.items()}
            by_source[source] = {mode: pass_at_1(samples) for mode, samples in own.items() if samples}
        estimates = {k: mean_pass_at_k(sampled, k) for k in ks}
        return cls(
            name=name,
            greedy=pass_at_1(modes["greedy"]) if "greedy" in modes else None,
            sampled=pass_at_1(modes["sampled"]) if "sampled" in modes else None,
            pass_at={k: value for k, value in estimates.items() if value is not None},
            by_source=by_source,
            verdicts={mode: _count(samples) for mode, samples in modes.items()},
        )

    def to_json(self) -> str:
        rates = {"greedy": self.greedy, "sampled": self.sampled}
        tree = {
            "name": self.name,
            "policy": self.policy,
            **{mode: rate.to_dict() if rate else None for mode, rate in rates.items()},
            "pass_at": {str(k): value for k, value in self.pass_at.items()},
            "by_source": {s: {m: r.to_dict() for m, r in modes.items()} for s, modes in self.by_source.items()},
            "verdicts": {mode: dict(counts) for mode, counts in self.verdicts.items()},
        }
        return json.dumps(tree, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EvalResult:
        """The inverse of `to_json`. Raises DataError with one line on anything else."""
        try:
            tree = json.loads(text)
            return cls(
                name=tree["name"],
                policy=tree.get("policy", ""),
                greedy=PassRate.from_dict(tree["greedy"]) if tree.get("greedy") else None,
                sampled=PassRate.from_dict(tree["sampled"]) if tree.get("sampled") else None,
                pass_at={int(k): value for k, value in tree.get("pass_at", {}).items()},
                by_source={
                    source: {mode: PassRate.from_dict(row) for mode, row in modes.items()}
                    for source, modes in tree.get("by_source", {}).items()
                },
                verdicts=tree.get("verdicts", {}),
            )
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not the result of an evaluation ({error}); write it with EvalResult.to_json") from None

    def write(self, path: str | Path) -> Path:
        """Write the JSON file, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_json())
        return path

    @classmethod
    def read(cls, path: str | Path) -> EvalResult:
        """Read the JSON file."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); run `assay eval` first") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None


def _count(samples: Iterable[Sample]) -> dict[str, int]:
    counts = Counter(Verdict(sample.verdict) for sample in samples)
    return {verdict.value: counts[verdict] for verdict in Verdict if counts[verdict]}
