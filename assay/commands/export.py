"""`assay export FROM TO`: what a run trained, as a plain Hugging Face folder; adapters are merged already.

FROM is a run, one of its stages, a checkpoint or a policy's folder; of a run or stage, what it ended with, else its
newest whole checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from assay.checkpoint import MARKER, is_complete, latest_valid, read_marker, writing
from assay.commands.context import say
from assay.errors import CheckpointError
from assay.policy import check_folder, load_policy, load_tokenizer, save_policy

OURS = ("trainer.pt", MARKER)  #: beside the weights in a checkpoint, and no part of a model


def main(arguments: argparse.Namespace) -> int:
    source, out = weights_of(Path(arguments.source)), Path(arguments.folder)
    check_folder(source)
    tokenizer = load_tokenizer(source)
    with writing(out, {"kind": "policy", "from": str(source.resolve())}) as folder:
        if arguments.dtype is None:
            shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*OURS), dirs_exist_ok=True)
        else:
            save_policy(load_policy(source, arguments.dtype), tokenizer, folder)
    say(f"export: from {source}")
    print(out)
    return 0


def weights_of(folder: Path) -> Path:
    """The model's folder that is meant. Raises CheckpointError where there is none, or none that is whole."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; name a run, a checkpoint or a policy")
    a_run = (folder / "config.yaml").is_file()  # whose own `policy` is what it began with
    for stage in (folder / "grpo", folder / "sft") if a_run else (folder,):
        if is_complete(stage / "policy"):
            return stage / "policy"
        newest = latest_valid(stage / "checkpoints")
        if newest is not None:
            return _inside(newest)
    if folder.name.startswith("step-"):
        read_marker(folder)
    if not (_inside(folder) / "config.json").is_file():
        raise CheckpointError(f"{folder}: holds neither a policy nor a whole checkpoint; name a run, or one of these")
    return _inside(folder)


def _inside(checkpoint: Path) -> Path:
    """GRPO keeps its model in a folder of its own, beside the adapter; SFT does not."""
    return checkpoint / "model" if (checkpoint / "model").is_dir() else checkpoint
