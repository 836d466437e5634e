"""`assay plan`: what is printed, and that what does not fit is said with status 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from assay.cli import main
from assay.commands.plan import described_nodes, plan, seated
from assay.commands.schema import RunConfig
from assay.config import validate
from assay.errors import ConfigError
from assay.policy import InitConfig, PolicyConfig
from assay.sizes import of_config, of_policy
from grpo.config import GRPOConfig
from grpo.footprint import engine_parts, in_transit, sequence_cache, sharded, trainer_parts
from rollouts.config import EngineConfig
from tests.assay.test_sizes import LITE

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30


def run_config(**tree: object) -> RunConfig:
    base = {"run_dir": "r", "policy": {"init": {}}, "tasks": {"train": {"path": "t.jsonl"}}, "grpo": {}}
    return validate(RunConfig, {**base, **tree}, "test")


def test_the_trainer_takes_twenty_bytes_a_parameter_and_its_micro_batch():
    size, config = of_config(LITE), run_config(grpo={"micro_batch_tokens": 4096}).grpo
    assert config is not None
    parts = trainer_parts(size, config, 1024, 1 << 24)
    assert parts["weights"] + parts["gradient"] + parts["Adam"] + parts["reference"] == 20 * 15_706_484_224
    assert parts["logits"] == 4 * 4 * 2**24
    twice = trainer_parts(size, config.model_copy(update={"micro_batch_tokens": 8192}), 1024, 1 << 24)
    assert twice["activations"] == 2 * parts["activations"] and twice["logits"] == parts["logits"]
    thin = trainer_parts(size, config.model_copy(update={"gradient_checkpointing": True}), 1024, 1 << 24)
    assert thin["activations"] < parts["activations"] / 10


def test_an_engine_is_split_over_its_devices_and_its_cache_is_bounded_on_a_cpu():
    size, engine = of_config(LITE), run_config(rollouts={"engine": {"dtype": "bfloat16"}}).rollouts.engine
    assert engine_parts(size, engine, 3072, 1)["weights"] == 2 * 15_706_484_224
    assert engine_parts(size, engine, 3072, 4)["weights"] == 2 * 15_706_484_224 // 4
    assert sequence_cache(size, engine, 3072) == 31_104 * 3072
    assert engine_parts(size, engine, 3072, 1)["KV cache"] == 128 * 31_104 * 3072
    assert engine_parts(size, engine, 3072, 0)["KV cache"] == GIB


def lite_missing(node: str, **cluster: object) -> list[str]:
    engine = {"dtype": "bfloat16"}
    grpo = {"gradient_checkpointing": True, "checkpoint_async": False}  # no copy of 176 GiB beside the steps
    config = run_config(rollouts={"engine": engine}, grpo=grpo, cluster={"engine_gpus": 1, **cluster})
    return plan(config, of_config(LITE), described_nodes([node]))[1]


def test_lite_does_not_fit_a_card_of_80_gib_and_each_reason_is_one_line():
    found = lite_missing("gpus=8,gpu_gib=80,cpus=96,ram_gib=1024")
    assert len(found) == 1 and found[0].startswith("node0: the trainer wants 29") and "\n" not in found[0]
    small = lite_missing("gpus=8,gpu_gib=24,cpus=96,ram_gib=1024")
    assert "an engine wants 29.30 GiB a device" in small[0] and "cluster.engine_gpus" in small[0]
    assert len(small) == 2
    split = lite_missing("gpus=8,gpu_gib=24,cpus=96,ram_gib=1024", engine_gpus=2)
    assert len(split) == 1 and "an engine wants" not in split[0]
    assert lite_missing("gpus=8,gpu_gib=400,cpus=96,ram_gib=1024", placement="separate", trainer_gpus=1) == []
    assert lite_missing("gpus=8,gpu_gib=2500,cpus=96,ram_gib=64") == []  # weights travel in buckets
    assert "1.17 GiB of memory wanted, 1.00 GiB there" in lite_missing("gpus=8,gpu_gib=2500,cpus=96,ram_gib=1")[0]


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2)])
def test_weights_on_their_way_take_three_buckets_and_a_copy_where_engines_may_ask_again(dtype: str, width: int):
    size, engine = of_config(LITE), EngineConfig(dtype=dtype)
    table = width * 102400 * 2048  # larger than a bucket of 64 MiB, and never cut
    assert in_transit(size, engine, kept=False) == 3 * table
    assert in_transit(size, engine.model_copy(update={"sync_bucket_mib": 1024}), kept=False) == 3 << 30
    assert in_transit(size, engine, kept=True) == 3 * table + width * size.parameters


def test_engines_that_merge_adapters_keep_the_policy_in_main_memory_and_the_driver_keeps_no_copy():
    size, alone = of_config(LITE), {"dtype": "bfloat16", "lora_sync": "adapter"}
    policy = {"init": {}, "dtype": "bfloat16", "lora": {}}
    cluster = {"engine_gpus": 1, "placement": "separate", "trainer_gpus": 1}

    def said(engine: dict[str, str]) -> tuple[str, list[str]]:
        grpo = {"gradient_checkpointing": True, "max_lag": 1}
        config = run_config(rollouts={"engine": engine}, grpo=grpo, cluster=cluster, policy=policy)
        lines, missing = plan(config, size, described_nodes(["gpus=8,gpu_gib=400,cpus=96,ram_gib=28"]))
        return "\n".join(text for _, text in lines), missing

    (merged, copied), (adapter, kept) = said({"dtype": "bfloat16"}), said(alone)
    assert "30.43 GiB of memory on the driver's node" in merged and "29.26 GiB of main memory" not in merged
    assert "1.17 GiB of memory on the driver's node" in adapter and "29.26 GiB of main memory for the frozen" in adapter
    assert "30.43 GiB of memory wanted" in copied[0] and "30.43 GiB of memory wanted" in kept[0]


def test_the_command_prints_the_plan_and_leaves_with_0_or_1(tmp_path: Path, capsys):
    tree = {"run_dir": "r", "policy": {"init": {}}, "tasks": {"train": {"path": "t"}}, "grpo": {}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    assert main(["plan", str(tmp_path / "c.yaml"), "--node", "cpus=2,ram_gib=8"]) == 0
    out = capsys.readouterr().out
    assert "deepseek_v2, 1,618,304 parameters, 1,192,320 active per token, 3 layers" in out
    assert "node0 (2 CPU, 8.00 GiB of memory): trainer, rollouts 0, rewards 0" in out
    assert f"{12 * 1_618_304 / 2**20:.1f} MiB of memory on the driver's node while one is written" in out
    assert main(["plan", str(tmp_path / "c.yaml"), "grpo.checkpoint_async=false", "--node", "cpus=2,ram_gib=8"]) == 0
    assert "while one is written" not in capsys.readouterr().out
    assert main(["plan", str(tmp_path / "c.yaml"), "cluster.engine_cpus=3", "--node", "cpus=2,ram_gib=0.1"]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing")]
    assert len(said) == 2
    assert "rollouts: 0 of 1 have a place; each wants 3 CPU on one node; node0 has 2 CPU free of 2 CPU" in said[0]
    assert "node0: " in said[1] and "102.4 MiB there" in said[1]
    assert main(["plan", str(tmp_path / "c.yaml"), "--node", "cpus=two"]) == 2
    assert "--node 'cpus=two': expected cpus=N" in capsys.readouterr().err


def test_the_reward_model_has_its_place_in_the_plan_however_the_run_comes_by_it(tmp_path: Path):
    tree = {"run_dir": str(tmp_path), "grpo": {"checkpoint_async": False}}
    four, size = described_nodes(["cpus=4"]), of_policy(PolicyConfig(init=InitConfig()))
    workers = {"rewards": {"workers": 3}}
    assert plan(run_config(**tree, **workers), size, four)[1] == []
    for beside in ({"reward_model_path": "elsewhere"}, {"reward_model": {}}):
        (missing,) = plan(run_config(**tree, **workers, **beside), size, four)[1]
        assert missing.startswith("reward-model: 0 of 1 have a place; each wants 1 CPU on one node; node0 has 0 CPU")
        lines, missing = plan(run_config(**tree, **beside), size, four)
        assert missing == [] and any(text.endswith("rewards 0, reward-model 0") for _, text in lines)
    (tmp_path / "reward_model").mkdir()
    (tmp_path / "reward_model" / "reward_model.json").write_text("{}")
    (tmp_path / "reward_model" / "config.json").write_text(json.dumps(LITE))
    assert len(plan(run_config(**tree, **workers), size, four)[1]) == 1


def test_the_reward_model_is_counted_where_it_lies_in_main_memory_or_on_the_device_it_is_given(tmp_path: Path):
    (tmp_path / "rm").mkdir()
    (tmp_path / "rm" / "reward_model.json").write_text("{}")
    (tmp_path / "rm" / "config.json").write_text(json.dumps(LITE))  # 58.51 GiB in fp32
    size = of_policy(PolicyConfig(init=InitConfig()))

    def found(*nodes: str, path: str = "rm", **cluster: object) -> tuple[list[str], list[str]]:
        config = run_config(reward_model_path=str(tmp_path / path), cluster={"engine_gpus": 1, **cluster})
        lines, missing = plan(config, size, described_nodes(nodes))
        return [text for name, text in lines if name == "rewards"], missing

    card = "gpus=2,gpu_gib=40,cpus=8,ram_gib=32"
    assert found(card, "cpus=8,ram_gib=64") == (
        ["the reward model, float32, on processors (cluster.reward_model_gpus: 0): weights 58.51 GiB"], []
    )  # fmt: skip
    (missing,) = found(card)[1]
    assert missing.startswith("node0: 58.") and "of memory wanted, 32.00 GiB there" in missing
    said, (missing,) = found(card, reward_model_gpus=1)
    assert said == ["the reward model, float32, on a device: weights 58.51 GiB"]
    assert missing == (
        "node0: the reward model wants 58.51 GiB on one device, 40.00 GiB there; set cluster.reward_model_gpus: 0, or "
        "take a smaller one"
    )
    assert found(card.replace("gpu_gib=40", "gpu_gib=80"), reward_model_gpus=1)[1] == []
    assert found(card, path="not there yet") == (
        ["the reward model, float32, on processors (cluster.reward_model_gpus: 0): weights 6.2 MiB"], []
    )  # fmt: skip


def test_the_parser_of_plan_needs_no_torch():
    code = (
        "import sys, contextlib, io\nfrom assay.cli import main\nimport assay.commands.plan\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main(['plan', '--help'])\n"
        "sys.exit(len({'torch', 'ray', 'vllm', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_adapters_hold_no_state_of_the_weights_and_their_own_reference():
    size = of_policy(PolicyConfig(init=InitConfig()))
    whole, thin = (trainer_parts(size, GRPOConfig(), 64, 1 << 20, adapted=adapted) for adapted in (False, True))
    narrow = trainer_parts(size, GRPOConfig(), 64, 1 << 20, True, "bfloat16")
    assert narrow["weights"] == thin["weights"] // 2 and narrow["activations"] < thin["activations"]
    rounded = trainer_parts(size, GRPOConfig(), 64, 1 << 20, dtype="bfloat16")  # weights stay, the reference is halved
    assert rounded["weights"] == whole["weights"] and rounded["reference"] == whole["reference"] // 2
    assert [thin[part] for part in ("gradient", "Adam", "reference")] == [0, 0, 0]
    assert thin["weights"] == whole["weights"] == whole["reference"] > 0


@pytest.mark.parametrize(
    ("word", "complaint"),
    [("cpus=inf", "is no amount"), ("count=nan", "is no amount"), ("cpus=-1", "is no amount"), ("gpu=8", "'gpus'")],
)
def test_a_node_that_cannot_be_is_refused(word: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        described_nodes([word])


def test_ranks_share_what_is_held_and_find_their_devices():
    size, config = of_config(LITE), run_config(grpo={"gradient_checkpointing": True})
    assert config.grpo is not None
    parts = trainer_parts(size, config.grpo, 1024, 1 << 24)
    eighth = sharded(parts, size, 8)
    held = ("weights", "gradient", "Adam", "reference")
    assert sum(eighth[part] for part in held) == pytest.approx(20 * 15_706_484_224 / 8, abs=8)
    assert eighth["activations"] == parts["activations"]
    table = size.vocabulary * size.hidden
    assert eighth["made whole"] == 4 * (3 * ((15_706_484_224 - 2 * table) // size.layers) + 2 * table)
    nodes = described_nodes(["gpus=8,gpu_gib=80,cpus=96,ram_gib=1024,count=2"])
    assert seated(8, nodes, config.cluster) == {"node0": 8, "node1": 0}
    assert seated(12, nodes, config.cluster) == {"node0": 8, "node1": 4}
    apart = run_config(cluster={"placement": "separate", "trainer_gpus": 4}).cluster
    assert seated(4, nodes, apart) == {"node0": 4, "node1": 0}
    assert seated(3, described_nodes(["cpus=4,count=2"]), config.cluster) == {"node0": 3}


def test_sharded_over_eight_cards_lite_fits_where_one_card_holds_it_not():
    config = run_config(
        rollouts={"engine": {"dtype": "bfloat16"}},
        grpo={"gradient_checkpointing": True, "micro_batch_tokens": 2048},
        cluster={"engine_gpus": 1, "placement": "separate", "trainer_gpus": 8},
    )
    nodes = described_nodes(["gpus=8,gpu_gib=80,cpus=96,ram_gib=1024,count=2"])
    _, alone = plan(config, of_config(LITE), nodes, 8)
    assert len(alone) == 1 and alone[0].startswith("node0: the trainer wants 29")
    lines, missing = plan(config, of_config(LITE), nodes, 8, True)
    assert missing == []
    assert any("on each of 8 ranks, sharded: weights 7.31 GiB" in text for _, text in lines)
    assert any(": 8 ranks of the trainer" in text for _, text in lines)
    _, missing = plan(config, of_config(LITE), nodes[:1], 20, True)
    assert any(m.startswith("trainer: 8 of 20 ranks have a device (node0 takes 8)") for m in missing)
    _, missing = plan(config, of_config(LITE), described_nodes(["gpus=8,gpu_gib=80,cpus=96,ram_gib=300"]), 8, True)
    assert any("468.0" in m and "300.00 GiB there" in m for m in missing)  # each loads all of it, 58.5 GiB
