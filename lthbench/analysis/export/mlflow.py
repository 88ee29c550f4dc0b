"""MLflow runs: one per training, in one experiment per pair."""

from __future__ import annotations

import logging
import os

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lthbench.analysis.export.runs import TrackedRun, tracked_runs
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store

__all__ = ["KEY_TAG", "MlflowException", "export_mlflow"]
KEY_TAG = "lthbench.key"
_BATCH = 1000  # what MLflow takes at once; of parameters 100
_MAX_PARAMETER = 6000


def export_mlflow(plan: Plan, store: Store, uri: str) -> int:
    """Log the finished trainings of a plan to an MLflow tracking server or store, and return how many runs were new.

    Args:
        uri: of the tracking server, the database, or (file:...) the folder.

    A training whose key is already logged is skipped; an unfinished run is logged anew.

    Raises:
        MlflowException: the server cannot be reached or refuses, or there is no such kind of store.
    """
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # its warnings contain tracebacks; failures are raised
    if uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow asks for it by name
    client = MlflowClient(tracking_uri=uri)
    experiments: dict[str, str] = {}
    logged: set[str] = set()
    new = 0
    for run in tracked_runs(plan, store):
        name = f"{plan.suite.title}: {run.folder[0]}"
        if name not in experiments:
            found = client.get_experiment_by_name(name)
            experiments[name] = found.experiment_id if found else client.create_experiment(name)
            logged |= _logged(client, experiments[name])
        if run.key not in logged:
            _log(client, experiments[name], run)
            new += 1
    return new


def _logged(client: MlflowClient, experiment: str) -> set[str]:
    """The keys of the complete runs; others are deleted."""
    keys, token = set(), None
    while True:
        page = client.search_runs([experiment], max_results=_BATCH, page_token=token)
        for run in page:
            if run.info.status == "FINISHED":
                keys.add(run.data.tags.get(KEY_TAG, ""))
            elif KEY_TAG in run.data.tags:
                client.delete_run(run.info.run_id)
        token = page.token
        if not token:
            return keys


def _log(client: MlflowClient, experiment: str, run: TrackedRun) -> None:
    when = int(1000 * run.finished)
    pair, arm, replicate = run.folder
    tags = {KEY_TAG: run.key, "pair": pair, "arm": arm, "replicate": replicate.removeprefix("replicate-")}
    made = client.create_run(experiment, start_time=when, tags=tags, run_name=f"{arm}/{replicate}/{run.name}")
    parameters = [Param(name, value[:_MAX_PARAMETER]) for name, value in run.parameters.items()]
    metrics = [Metric(name, value, when, step) for name, points in run.curves.items() for step, value in points]
    metrics += [Metric(name, value, when, 0) for name, value in run.metrics.items()]
    for begin in range(0, len(parameters), 100):
        client.log_batch(made.info.run_id, params=parameters[begin : begin + 100])
    for begin in range(0, len(metrics), _BATCH):
        client.log_batch(made.info.run_id, metrics=metrics[begin : begin + _BATCH])
    client.set_terminated(made.info.run_id, end_time=when)
