"""What is here, what is missing and what for: `python -m mmavlm.doctor [format=json]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from mmavlm.commands.plain import run_plain
from mmavlm.core.errors import ConfigError


def doctor(format: str, timeout_s: float) -> int:
    """Print what was found; 1 if something is broken that all of mmavlm needs, else 0.

    Raises:
        ConfigError: if `timeout_s` is not above 0.
    """
    if not 0 < timeout_s < float("inf"):
        raise ConfigError(f"timeout_s must be above 0, got {timeout_s:g}")
    # Imported here, so that help and mistakes come at once.
    from mmavlm.commands.findings import is_well, table
    from mmavlm.commands.health import examine

    findings = examine(timeout_s)
    well = is_well(findings)
    if format == "json":
        told = {"ok": well, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(table(findings))
    return 0 if well else 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mmavlm-doctor`."""
    run_plain("doctor", doctor, arguments)


if __name__ == "__main__":
    main()
