import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from assay.errors import WeightMismatch
from rollouts.config import ProofConfig
from rollouts.weights import compare_probe, probe_sequences, publish, unpack


def bundle(version: int = 3):
    state = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}
    return state, publish(state, version)


def test_a_bundle_carries_values_dtypes_and_version():
    state, sent = bundle()
    back = unpack(sent)
    assert sent.version == 3
    assert back["b"].dtype == torch.bfloat16
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert sent.size_bytes == 6 * 4 + 2 * 2


def test_publishing_copies_so_that_training_on_does_not_change_what_was_sent():
    state, sent = bundle()
    state["a.weight"].add_(1)
    assert unpack(sent)["a.weight"][0, 0] == 0


def test_a_tensor_damaged_on_the_way_is_named():
    _, sent = bundle()
    damaged = dict(sent.tensors)
    damaged["a.weight"] = np.array(damaged["a.weight"])
    damaged["a.weight"][1, 2] += 1e-6
    with pytest.raises(WeightMismatch, match=r"version 3 .*a\.weight differ"):
        unpack(replace(sent, tensors=damaged))


def test_a_tensor_lost_on_the_way_is_named():
    _, sent = bundle()
    with pytest.raises(WeightMismatch, match="b missing"):
        unpack(replace(sent, tensors={"a.weight": sent.tensors["a.weight"]}))


def test_of_shared_memory_that_cannot_be_written_to_one_tensor_at_a_time_is_copied():
    """What an engine holds beyond its own weights while it loads and proves: the largest tensor, not the policy."""
    sent = publish({str(i): torch.full((64, 64), float(i)) for i in range(20)}, 1)
    for array in sent.tensors.values():
        array.flags.writeable = False  # as Ray hands them over
    state, copies, most = unpack(sent), list[weakref.ref[torch.Tensor]](), 0
    for name, tensor in state.items():
        assert torch.equal(tensor, torch.full((64, 64), float(name)))
        tensor.add_(1)  # a loader may: the copy is its own
        copies.append(weakref.ref(tensor))
        most = max(most, sum(copy() is not None for copy in copies))
    assert most <= 2 and len(copies) == len(state) == 20
    assert torch.equal(state["7"], torch.full((64, 64), 7.0))


def test_the_probe_accepts_rounding_and_a_rare_router_flip():
    engine = [[-1.0 + 1e-6 * i for i in range(20)]]
    trainer = [[-1.0] * 20]
    assert compare_probe(engine, trainer, ProofConfig(), 0) < 2e-5
    engine[0][5] = -1.2  # one token of twenty: a near-tie broken the other way
    assert compare_probe(engine, trainer, ProofConfig(), 0) < 2e-5


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_the_probe_refuses_a_difference_on_more_than_a_few_tokens(share: float):
    engine = [[-1.0 - 0.01 * (i < 20 * share) for i in range(20)]]
    with pytest.raises(WeightMismatch, match="computes other log-probabilities"):
        compare_probe(engine, [[-1.0] * 20], ProofConfig(), 0)


def test_an_empty_probe_or_nan_proves_nothing():
    with pytest.raises(WeightMismatch, match="nothing was proved"):
        compare_probe([], [], ProofConfig(), 0)
    for sick in range(4):  # wherever it stands: sorting does not move it to an end
        engine = [[float("nan") if i == sick else -1.0 + 1e-7 * j for j in range(4)] for i in range(4)]
        with pytest.raises(WeightMismatch, match="4 of 16 log-probabilities of the probe are no finite numbers"):
            compare_probe(engine, [[-1.0] * 4] * 4, ProofConfig(), 0)


def test_probe_sequences_avoid_special_tokens_and_repeat():
    sequences = probe_sequences(300, avoid=range(10))
    assert sequences == probe_sequences(300, avoid=range(10))
    assert min(min(s) for s in sequences) >= 10
