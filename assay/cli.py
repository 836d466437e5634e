"""The `assay` command. Arguments here, work in `assay.commands`, imported only when asked for."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
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
    "reward": ("reward", "check a reward: gold, empty, wrong, constant and tampering answers to each task"),
    "export": ("export", "a run's policy, or a checkpoint's, as a plain Hugging Face folder"),
    "report": ("report", "write RUN/report.html from what a run left behind"),
    "sandbox": ("sandbox", "build the image of the docker tier; test every language in a tier"),
    "plan": ("plan", "what a run would take and where it would go, before anything is loaded"),
    "doctor": ("doctor", "what this machine offers: versions, compilers, isolation, devices"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. 0: done; 2: something the user can mend, said in one line; 130: stopped by Ctrl-C or SIGTERM."""
    arguments = _parsed(build_parser(), argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from assay.shadow import check_shadowing

        with _swallowed_told_again():
            check_shadowing()
            code = _run(arguments)
    except AssayError as error:
        print(f"assay {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and error.filename is None:
            raise  # not about a file, so a bug, which keeps its traceback
        what = f"the disk is full ({error}); free space, and give the same command again" if full else str(error)
        print(f"assay {arguments.command}: {what}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"assay {arguments.command}: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    return code


def _run(arguments: argparse.Namespace) -> int:
    """The command, by itself or as one of the ranks a launcher started."""
    module, _ = COMMANDS[arguments.command]
    drive = partial(importlib.import_module(f"assay.commands.{module}").main, arguments)
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return int(drive())
    from assay.commands import ranks

    return ranks.main(arguments.command, drive)


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


@contextmanager
def _swallowed_told_again() -> Iterator[None]:
    """A signal that comes while Python ends an object, in `__del__` or for a weak reference, raises where nobody hears
    it: "Exception ignored in", and the command would go on to its end. Inside, it is sent again a moment later."""
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
            again.daemon = True
            again.start()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand behind options too, where argparse takes no more of them."""
    arguments, left = parser.parse_known_args(argv)
    if left and (not hasattr(arguments, "overrides") or any("=" not in w or w.startswith("-") for w in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        arguments.overrides = [*arguments.overrides, *left]
    return arguments


def _overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings that replace the file's")


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    parser.add_argument(
        "--node",
        action="append",
        metavar="gpus=8,gpu_gib=80,cpus=96,ram_gib=1024,count=2",
        help="plan for such nodes, the first being the driver's, in place of this machine or cluster.address",
    )
    parser.add_argument(
        "--ranks", type=_positive, metavar="N", help="processes of the trainer; cluster.trainer_gpus, or 1"
    )
    parser.add_argument("--sharded", action="store_true", help="they shard the model (FSDP2) instead of replicating it")


def _grpo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="a YAML file; see configs/")
    _overrides(parser)
    parser.add_argument("--resume", metavar="RUN", help="take up an interrupted run from its newest checkpoint")
    parser.add_argument("--replay", metavar="RUN", help="train on the samples RUN recorded, without an engine")


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    parser.add_argument("--policy", metavar="FOLDER", help="the checkpoint to evaluate; policy.path if not given")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a JSONL file of tasks")
    parser.add_argument("--format", default="assay", help="row format: assay, mbpp")
    parser.add_argument("--limit", type=_positive, help="only the first so many")


def _reward_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("check",))
    _check_arguments(parser)
    parser.add_argument("--tier", default="local", choices=("docker", "local", "weak"), help="%(default)s")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FROM", help="a run, a stage of it, a checkpoint or a policy's folder")
    parser.add_argument("folder", metavar="TO", help="the folder to make")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="convert; as they are, if not given"
    )


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run")


def _sandbox_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("build", "test"), help="build the image and test it; or only test")
    parser.add_argument("--tier", default="docker", choices=("docker", "local", "weak"), help="%(default)s")
    parser.add_argument("--image", default="assay-sandbox", help="%(default)s")
    parser.add_argument("--runtime", help="another container runtime, such as runsc (gVisor)")
    parser.add_argument("--languages", default="all", metavar="A,B,...", help="%(default)s")
    parser.add_argument(
        "--source",
        default="auto",
        choices=("auto", "dockerfile", "packages"),
        help="dockerfile needs a registry of images, packages only Debian's; auto tries both",
    )


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to say."""


_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "grpo": _grpo_arguments,
    "eval": _eval_arguments,
    "check-tasks": _check_arguments,
    "reward": _reward_arguments,
    "export": _export_arguments,
    "report": _report_arguments,
    "sandbox": _sandbox_arguments,
    "plan": _plan_arguments,
    "doctor": _no_arguments,
}


if __name__ == "__main__":
    sys.exit(main())
