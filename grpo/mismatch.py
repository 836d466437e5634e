"""Engine and trainer disagree about the tokens the engine drew: by how much, on how many, and what that points to.

Torch-free. With d = log pi_old - log mu of a token: routers that break near-ties the other way change a few tokens
much and leave the others alone; another precision, temperature or set of weights changes all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from assay.errors import TrainingDiverged

THRESHOLDS = (0.001, 0.01, 0.1, 1.0)  #: nats, of the histogram of |d|
FEW, MOST = 0.1, 0.5


def share_above(threshold: float) -> str:
    """The metric of the share of tokens with |d| above a threshold."""
    return f"mismatch/above_{threshold:g}"


def check(metrics: Mapping[str, float], stop_above: float, step: int, lag: int) -> None:
    """Raises TrainingDiverged where the mean k3 per token is above the limit, or no number."""
    mismatch = metrics.get("mismatch/k3", 0.0)
    if not mismatch <= stop_above:
        raise TrainingDiverged(
            f"step {step}: engine and trainer disagree about the sampled tokens (mean k3 {mismatch:.2e}, allowed "
            f"{stop_above:.0e}, largest |log-ratio| {metrics['mismatch/max_abs_logratio']:.2e}) although the weights "
            f"were proved equal: {cause(metrics, lag)}"
        )


def cause(metrics: Mapping[str, float], lag: int) -> str:
    """What the shape of the disagreement points to, as far as it can be told."""
    if lag > 0:
        return (
            f"the completions come from weights {lag} versions old; lower grpo.max_lag or grpo.learning_rate, or weigh "
            f"such tokens with grpo.correction and allow more with grpo.mismatch.stop_above"
        )
    if share_above(THRESHOLDS[0]) not in metrics:
        return "look at precision, the sampling temperature and the router"
    shares = [metrics[share_above(threshold)] for threshold in THRESHOLDS]
    beyond = ", ".join(f"{s:.1%} above {t:g}" for t, s in zip(THRESHOLDS, shares, strict=True))
    _, slightly, clearly, _ = shares
    if clearly <= FEW:
        return f"few tokens carry it ({beyond} nats), as when routers break ties differently: gates in fp32, or replay"
    if slightly >= MOST:
        return f"it is spread over the tokens ({beyond} nats): look at precision and the sampling temperature"
    return f"neither few tokens nor all ({beyond} nats): look at precision, the sampling temperature and the router"
