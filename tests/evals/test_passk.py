import itertools
import math

import pytest

from assay.errors import DataError
from assay.types import Verdict
from evals.passk import EvalResult, PassRate, Sample, mean_pass_at_k, pass_at_1, pass_at_k

AC, WA, CE, INFRA = Verdict.AC, Verdict.WA, Verdict.CE, Verdict.INFRA


def samples(problems, source="x"):
    return [Sample(name, source, verdict) for name, verdicts in problems.items() for verdict in verdicts]


def test_pass_at_k_by_hand():
    assert pass_at_k(5, 2, 1) == pytest.approx(2 / 5)
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)  # C(3,2) = 3 of C(5,2) = 10 pairs hold no pass
    assert pass_at_k(5, 2, 4) == 1.0  # only three fail, so four always hold a pass
    assert pass_at_k(200, 0, 100) == 0.0
    assert pass_at_k(3, 3, 1) == 1.0


def test_pass_at_k_is_the_share_of_all_subsets_with_a_pass():
    for n, c in itertools.product(range(1, 8), range(8)):
        if c > n:
            continue
        for k in range(1, n + 1):
            subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_refuses_what_has_no_meaning():
    with pytest.raises(DataError, match="lower k or sample more"):
        pass_at_k(3, 1, 4)
    with pytest.raises(DataError):
        pass_at_k(3, 4, 1)


def test_one_sample_per_problem_is_binomial():
    rate = pass_at_1(samples({"a": [AC], "b": [WA], "c": [AC], "d": [AC]}))
    assert (rate.passed, rate.scored, rate.infra, rate.problems) == (3, 4, 0, 4)
    assert rate.rate == 0.75
    assert rate.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))  # 0.2165


def test_samples_of_one_problem_are_not_independent():
    # r = (2 - 1, 0 - 1): sqrt(1 + 1) / 4 = 0.3536, where treating all four as independent would say 0.25
    rate = pass_at_1(samples({"a": [AC, AC], "b": [WA, CE]}))
    assert rate.rate == 0.5 and rate.standard_error == pytest.approx(math.sqrt(2) / 4)
    # every problem has the same rate, so the choice of problems adds nothing
    assert pass_at_1(samples({"a": [AC, WA], "b": [WA, AC]})).standard_error == 0.0


def test_infra_is_left_out_and_counted():
    rate = pass_at_1(samples({"a": [AC, INFRA], "b": [WA], "c": [INFRA]}))
    assert (rate.passed, rate.scored, rate.infra, rate.problems, rate.rate) == (1, 2, 2, 2, 0.5)
    nothing = pass_at_1(samples({"a": [INFRA]}))
    assert nothing.rate is None and nothing.standard_error is None and str(nothing) == "not scored (1 INFRA)"
    assert str(rate) == "50.0% ± 35.4% (1/2, 2 INFRA left out)"


def test_mean_pass_at_k_uses_problems_with_enough_samples():
    some = samples({"a": [AC, WA, WA], "b": [AC, AC], "c": [AC, INFRA]})
    assert mean_pass_at_k(some, 2) == pytest.approx((2 / 3 + 1.0) / 2)  # a: 1 - C(2,2)/C(3,2)
    assert mean_pass_at_k(some, 9) is None


def test_a_result_reads_back_as_written(tmp_path):
    greedy = samples({"a": [AC], "b": [WA]}, "mbpp") + samples({"c": [CE]}, "humaneval")
    sampled = samples({"a": [AC, AC, INFRA], "b": [WA, AC]}, "mbpp")
    result = EvalResult.of("grpo", greedy, sampled, ks=[2, 64])
    path = result.write(tmp_path / "eval/grpo.json")
    assert EvalResult.read(path) == result
    assert result.pass_at == {2: 1.0}
    assert result.by_source["humaneval"] == {"greedy": pass_at_1(samples({"c": [CE]}))}
    assert result.verdicts == {"greedy": {"AC": 1, "WA": 1, "CE": 1}, "sampled": {"AC": 3, "WA": 1, "INFRA": 1}}
    row = PassRate.to_dict(result.greedy)
    assert row["pass@1"] == pytest.approx(1 / 3) and row["passed"] == 1 and row["scored"] == 3 and row["infra"] == 0


def test_a_file_that_is_no_result_is_refused_in_one_line(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError, match="not the result of an evaluation"):
        EvalResult.read(tmp_path / "x.json")
    with pytest.raises(DataError, match="assay eval"):
        EvalResult.read(tmp_path / "none.json")
