"""`ArrayExecutor`: submitit's executor for Slurm, with another way of calling sbatch."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

from submitit.core.core import Job
from submitit.core.utils import DelayedSubmission, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor, SlurmJob

from lthbench.suite.slurm_options import KEPT

# Variables of the user's environment that would override the options in a script (sbatch(1), "Input environment
# variables").
_OVERRULING = sorted(f"SBATCH_{name.replace('-', '_').upper()}" for name in KEPT | {"array-inx", "timelimit"})


class ArrayExecutor(SlurmExecutor):
    """Sends jobs to Slurm, and parses sbatch's machine-readable output: `number`, or `number;cluster`."""

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        unset = [word for name in _OVERRULING for word in ("-u", name)]
        return ["env", *unset, "sbatch", "--parsable", str(submission_file_path)]

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        said = string if isinstance(string, str) else string.decode(errors="replace")
        # A cluster's own sbatch may print more before it.
        numbers = re.findall(r"^([0-9]+)(?:;\S*)?\s*$", said, re.MULTILINE)
        if not numbers:
            raise FailedSubmissionError(f"sbatch said {said!r}, and no job's number")
        return str(numbers[-1])

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[Job[Any]]:
        """Submit one job, or several as an array, by this class (submitit would use its own for arrays)."""
        if len(delayed_submissions) == 1:
            return super()._internal_process_submissions(delayed_submissions)
        orders = []
        for delayed in delayed_submissions:
            delayed.set_timeout(self.parameters["time"], self.max_num_timeout)
            orders.append(self.folder / f"{uuid.uuid4().hex}.pkl")
            delayed.dump(orders[-1])
        array = type(self)(self.folder, self.max_num_timeout)
        array.parameters = self.parameters | {"map_count": len(orders)}
        number = array._submit_command(self._submitit_command_str).job_id
        processes = list(range(self._num_tasks()))
        jobs: list[Job[Any]] = [SlurmJob(self.folder, f"{number}_{index}", processes) for index in range(len(orders))]
        for job, order in zip(jobs, orders, strict=True):
            job.paths.move_temporary_file(order, "submitted_pickle")
        return jobs
