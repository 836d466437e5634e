"""The `assay` command. Arguments here, work in `assay.commands`, imported only when asked for."""

from __future__ import annotations

import argparse
import errno
import importlib
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from assay.errors import AssayError

#: command -> (module in assay.commands, one line for --help)
COMMANDS = {
    "recipe": ("recipe", "the whole chain: tasks, SFT, preferences, reward model, GRPO, evaluation, report"),
    "sft": ("train", "supervised fine-tuning of the policy on demonstrations"),
    "preferences": ("train", "sample the SFT policy and label its programs by their tests"),
    "reward-model": ("train", "train the reward model on those labels"),
    "grpo": ("train", "GRPO on a policy that exists, against tests, the reward model, or both"),
    "eval": ("train", "pass@1 of a policy on the held-out tasks, greedy and sampled"),
    "check-tasks": ("check_tasks", "run reference solutions: gold must pass, an empty answer must fail"),
    "report": ("report", "write RUN/report.html from what a run left behind"),
    "doctor": ("doctor", "what this machine offers: versions, compilers, isolation, devices"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. 0: done; 2: something the user can mend, said in one line; 130: stopped by Ctrl-C or SIGTERM."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    module, _ = COMMANDS[arguments.command]
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from assay.shadow import check_shadowing

        check_shadowing()
        code: int = importlib.import_module(f"assay.commands.{module}").main(arguments)
    except AssayError as error:
        print(f"assay {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"assay {arguments.command}: the disk is full ({error}); free space and go on", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"assay {arguments.command}: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
    return code


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM asks for the same orderly end as Ctrl-C: actors stopped, what is done kept."""
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="assay", description="Align code models on what compiles and passes.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        _ARGUMENTS.get(name, _config_arguments)(sub)
    return parser


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML file; see configs/")
    _overrides(parser)


def _overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings that replace the file's")


def _grpo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="a YAML file; see configs/")
    _overrides(parser)
    parser.add_argument("--resume", metavar="RUN", help="take up an interrupted run from its newest checkpoint")


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    parser.add_argument("--policy", metavar="FOLDER", help="the checkpoint to evaluate; policy.path if not given")


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a JSONL file of tasks")
    parser.add_argument("--format", default="assay", help="row format: assay, mbpp")
    parser.add_argument("--limit", type=int, help="only the first so many")


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run")


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to say."""


_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "grpo": _grpo_arguments,
    "eval": _eval_arguments,
    "check-tasks": _check_arguments,
    "report": _report_arguments,
    "doctor": _no_arguments,
}


if __name__ == "__main__":
    sys.exit(main())
