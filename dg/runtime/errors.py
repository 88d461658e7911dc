"""The three ways in which a run ends early, and what each means for the exit code."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and the mend. Exit code 2, no traceback."""


class RunError(Exception):
    """The run failed for a reason that is understood (a NaN, an empty mesh). One message, no traceback. Exit code 2."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM; the state was kept. Exit code 130."""


EXIT_CODES = {UserError: 2, RunError: 2, Interrupted: 130}


def exit_code(error: BaseException) -> int:
    """1 for what nobody foresaw; that alone comes with a traceback."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
