"""What this machine has of what runs use, on one screen: `python -m dg.doctor`. For reports of faults, too."""

from __future__ import annotations

import sys


def main() -> int:
    from dg.runtime.doctor import report

    for what, how in report():
        print(f"{what:<22}{how}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
