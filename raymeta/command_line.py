"""What every command shares: one clear error, the right exit code, and no traceback unless it is asked for."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from raymeta.errors import RaymetaError


def run_command(name: str, command: Callable[[], int], *, verbose: bool = False) -> int:
    """Call `command` and turn what it raises into a message on stderr and an exit code.

    2 configuration, 3 environment or data, 1 a failed run, 130 interrupted; a closed stdout (`| head`) is calm.
    """
    try:
        code = command()
        sys.stdout.flush()
    except RaymetaError as error:
        if verbose:
            traceback.print_exc()
        print(f"raymeta {name}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"raymeta {name}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if verbose:
            traceback.print_exc()
        hint = "" if verbose else " (run again with -v for the traceback)"
        print(f"raymeta {name}: {type(error).__name__}: {error}{hint}", file=sys.stderr)
        return 1
    return code


def dashed(argv: Sequence[str]) -> list[str]:
    """`argv` with `-` for `_` in option names, so that argparse takes either."""
    result = []
    for token in argv:
        name, equals, value = token.partition("=")
        result.append(name.replace("_", "-") + equals + value if name.startswith("--") else token)
    return result
