"""What the shape of a disagreement points to."""

import pytest

from assay.errors import TrainingDiverged
from grpo.mismatch import THRESHOLDS, cause, check, share_above


def shares(*values: float) -> dict[str, float]:
    return {share_above(t): v for t, v in zip(THRESHOLDS, values, strict=True)}


@pytest.mark.parametrize(
    ("seen", "lag", "said"),
    [
        (shares(0.3, 0.06, 0.05, 0.05), 0, "few tokens carry it .*5.0% above 1 nats.*routers break ties"),
        (shares(1.0, 0.98, 0.7, 0.01), 0, "spread over the tokens .*98.0% above 0.01.*precision and the sampling"),
        (shares(0.5, 0.4, 0.2, 0.1), 0, "neither few tokens nor all"),
        (
            shares(1.0, 0.98, 0.7, 0.01),
            2,
            "weights 2 versions old; .*grpo.correction and allow more with grpo.mismatch",
        ),
        (shares(0.3, 0.06, 0.05, 0.05), 1, "weights 1 versions old"),
        ({}, 0, "precision, the sampling temperature and the router"),
    ],
)
def test_the_message_names_the_cause_as_far_as_it_can_be_told(seen: dict[str, float], lag: int, said: str):
    metrics = {"mismatch/k3": 0.3, "mismatch/max_abs_logratio": 4.0, **seen}
    with pytest.raises(TrainingDiverged, match=rf"step 7: .*mean k3 3\.00e-01, allowed 5e-02.*4\.00e\+00.*{said}"):
        check(metrics, 0.05, 7, lag)
    assert "\n" not in cause(metrics, lag)


def test_no_number_is_no_agreement_and_a_small_one_is():
    with pytest.raises(TrainingDiverged, match="mean k3 nan"):
        check({"mismatch/k3": float("nan"), "mismatch/max_abs_logratio": float("nan")}, 0.05, 1, 0)
    check({"mismatch/k3": 0.05, "mismatch/max_abs_logratio": 1.0}, 0.05, 1, 0)
    check({}, 0.05, 1, 0)  # a step that trained on nothing
