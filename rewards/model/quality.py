"""How good a score is, on held-out tasks. Pure functions; None where a number cannot be given."""

from __future__ import annotations

from collections.abc import Sequence


def accuracy(scores: Sequence[float], passed: Sequence[bool], threshold: float = 0.5) -> float | None:
    """Share of samples on the right side of the threshold."""
    right = sum((s >= threshold) == p for s, p in zip(scores, passed, strict=True))
    return right / len(scores) if scores else None


def auc(scores: Sequence[float], passed: Sequence[bool]) -> float | None:
    """Probability that a passing sample scores above a failing one, ties half (Mann-Whitney U / n_p n_f)."""
    positives = sum(passed)
    negatives = len(passed) - positives
    if not positives or not negatives:
        return None
    order = sorted(range(len(scores)), key=scores.__getitem__)
    rank_sum, i = 0.0, 0
    while i < len(order):
        j = i
        while j < len(order) and scores[order[j]] == scores[order[i]]:
            j += 1
        rank_sum += sum(passed[k] for k in order[i:j]) * (i + 1 + j) / 2  # the mean rank of the tie
        i = j
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def calibration_error(scores: Sequence[float], passed: Sequence[bool], bins: int = 10) -> float | None:
    """Expected calibration error: sum over equal-width bins of n_b / n |mean score - share passed| (1706.04599)."""
    if not scores:
        return None
    table = calibration_bins(scores, passed, bins)
    return sum(row["n"] * abs(row["predicted"] - row["observed"]) for row in table) / len(scores)


def calibration_bins(scores: Sequence[float], passed: Sequence[bool], bins: int = 10) -> list[dict[str, float]]:
    """Per equal-width bin that holds any: mean score, share passed, count. What a reliability diagram draws."""
    cells: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for score, good in zip(scores, passed, strict=True):
        cells[min(bins - 1, int(score * bins))].append((score, good))
    return [
        {"predicted": sum(s for s, _ in c) / len(c), "observed": sum(g for _, g in c) / len(c), "n": len(c)}
        for c in cells
        if c
    ]


def pair_accuracy(scores: Sequence[float], passed: Sequence[bool], tasks: Sequence[str]) -> float | None:
    """AUC inside tasks, over all pairs: telling programs for one task apart, which is what a group's advantage uses."""
    by_task: dict[str, tuple[list[float], list[float]]] = {}
    for score, good, task in zip(scores, passed, tasks, strict=True):
        by_task.setdefault(task, ([], []))[good].append(score)
    won, pairs = 0.0, 0
    for failing, passing in by_task.values():
        pairs += len(failing) * len(passing)
        won += sum((p > f) + 0.5 * (p == f) for p in passing for f in failing)
    return won / pairs if pairs else None


def report(scores: Sequence[float], passed: Sequence[bool], tasks: Sequence[str]) -> dict[str, float | int | None]:
    """All of the above, with what they have to be compared to."""
    base = sum(passed) / len(passed) if passed else None
    return {
        "samples": len(scores),
        "tasks": len(set(tasks)),
        "base_rate": base,
        "accuracy": accuracy(scores, passed),
        "accuracy_of_the_majority": None if base is None else max(base, 1 - base),
        "auc": auc(scores, passed),
        "pair_accuracy": pair_accuracy(scores, passed, tasks),
        "calibration_error": calibration_error(scores, passed),
    }
