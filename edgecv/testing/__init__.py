"""Tests that a plug-in's package runs against its own code: what EdgeCV expects of a runtime adapter.

They need no pytest: each is a function that raises ``ContractBroken``. docs/plugins.md shows how to call them.
"""

from __future__ import annotations

from edgecv.testing.runtimes import RUNTIME_CHECKS as RUNTIME_CHECKS, check_runtime as check_runtime
from edgecv.testing.subject import ContractBroken as ContractBroken, RuntimeSubject as RuntimeSubject

__all__ = ["RUNTIME_CHECKS", "ContractBroken", "RuntimeSubject", "check_runtime"]
