"""`assay plan`: what is printed, and that what does not fit is said with status 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from assay.cli import main
from assay.commands.plan import described_nodes, plan
from assay.commands.schema import RunConfig
from assay.config import validate
from assay.errors import ConfigError
from assay.policy import InitConfig, PolicyConfig
from assay.sizes import of_config, of_policy
from grpo.config import GRPOConfig
from grpo.footprint import engine_parts, in_transit, sequence_cache, trainer_parts
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
    grpo = {"gradient_checkpointing": True}
    config = run_config(rollouts={"engine": engine}, grpo=grpo, cluster={"engine_gpus": 1, **cluster})
    return plan(config, of_config(LITE), described_nodes([node]))[1]


def test_lite_does_not_fit_a_card_of_80_gib_and_each_reason_is_one_line():
    found = lite_missing("gpus=8,gpu_gib=80,cpus=96,ram_gib=1024")
    assert len(found) == 1 and found[0].startswith("node0: the trainer wants 29") and "\n" not in found[0]
    small = lite_missing("gpus=8,gpu_gib=24,cpus=96,ram_gib=1024")
    assert "an engine wants 29.30 GiB a device" in small[0] and "cluster.engine_gpus" in small[0]
    assert len(small) == 2
    split = lite_missing("gpus=8,gpu_gib=24,cpus=96,ram_gib=1024", engine_gpus=2)
    assert "planned for but not started yet" in split[0]
    assert len(split) == 2 and "an engine wants" not in split[1]
    assert lite_missing("gpus=8,gpu_gib=400,cpus=96,ram_gib=1024", placement="separate", trainer_gpus=1) == []
    assert lite_missing("gpus=8,gpu_gib=2500,cpus=96,ram_gib=64") == []  # weights travel in buckets
    assert "2.34 GiB of memory wanted, 2.00 GiB there" in lite_missing("gpus=8,gpu_gib=2500,cpus=96,ram_gib=2")[0]


def test_weights_on_their_way_take_three_buckets_and_a_copy_where_engines_may_ask_again():
    size = of_config(LITE)
    table = 4 * 102400 * 2048  # larger than a bucket of 64 MiB, and never cut
    assert in_transit(size, 64, kept=False) == 3 * table
    assert in_transit(size, 1024, kept=False) == 3 << 30
    assert in_transit(size, 64, kept=True) == 3 * table + 4 * size.parameters


def test_the_command_prints_the_plan_and_leaves_with_0_or_1(tmp_path: Path, capsys):
    tree = {"run_dir": "r", "policy": {"init": {}}, "tasks": {"train": {"path": "t"}}, "grpo": {}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    assert main(["plan", str(tmp_path / "c.yaml"), "--node", "cpus=2,ram_gib=8"]) == 0
    out = capsys.readouterr().out
    assert "deepseek_v2, 1,618,304 parameters, 1,192,320 active per token, 3 layers" in out
    assert "node0 (2 CPU, 8.00 GiB of memory): trainer, rollouts 0, rewards 0" in out
    assert main(["plan", str(tmp_path / "c.yaml"), "cluster.engine_cpus=3", "--node", "cpus=2,ram_gib=0.1"]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing")]
    assert len(said) == 2
    assert "rollouts: 0 of 1 have a place; each wants 3 CPU on one node; node0 has 2 CPU free of 2 CPU" in said[0]
    assert "node0: " in said[1] and "102.4 MiB there" in said[1]
    assert main(["plan", str(tmp_path / "c.yaml"), "--node", "cpus=two"]) == 2
    assert "--node 'cpus=two': expected cpus=N" in capsys.readouterr().err


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
    assert [thin[part] for part in ("gradient", "Adam", "reference")] == [0, 0, 0]
    assert thin["weights"] == whole["weights"] == whole["reference"] > 0


@pytest.mark.parametrize(
    ("word", "complaint"),
    [("cpus=inf", "is no amount"), ("count=nan", "is no amount"), ("cpus=-1", "is no amount"), ("gpu=8", "'gpus'")],
)
def test_a_node_that_cannot_be_is_refused(word: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        described_nodes([word])
