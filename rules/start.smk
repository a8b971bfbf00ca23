# What is looked at before the first job, so that nothing fails after hours that could have failed at once.

from snakemake.settings.types import SharedFSUsage

from common.access import check_access, check_gpu, check_harness, check_trackers


def before_first_job():
    """Stop if a gated model, lm-evaluation-harness, a GPU or a file system that jobs need is not there."""
    # Storage plugins copy declared files alone. Weights, databases and checkpoints lie in folders beside these.
    if SharedFSUsage.INPUT_OUTPUT not in workflow.storage_settings.shared_fs_usage:
        raise WorkflowError(
            "Found an executor whose jobs share no file system, expected a shared one: jobs read models, databases and "
            "checkpoints where others put them. Start snakemake --cores all within one pod or machine that has the GPUs "
            "(docs/slurm.md, other executors). Nothing was started."
        )
    try:
        check_access({name: config["models"][name] for name in LOADED})
        if workflow.local_exec:
            computing = [job for job in workflow.dag.needrun_jobs() if "gpu" in job.rule.resources]
            check_gpu({job.wildcards.model: config["models"][job.wildcards.model] for job in computing})
        # Conda brings the harness along, and of a bundle nothing is measured again.
        deployed, allowed = workflow.deployment_settings.deployment_method, workflow.dag_settings.allowed_rules
        if not deployed and any(job.rule.name == "train" for job in workflow.dag.needrun_jobs()):
            check_trackers(TRACKERS)
        check_harness([] if deployed or "harness" not in (allowed or ["harness"]) else HARNESS_TASKS)
    except UserError as error:
        raise WorkflowError(str(error)) from None
    # Snakemake would lower a job's GPUs to those of the run, unsaid.
    limit = workflow.global_resources.get("gpu").value
    for name, given in workflow.resource_settings.overwrite_resources.items():
        asked = given.get("gpu").value
        if isinstance(limit, int) and isinstance(asked, int) and asked > limit:
            raise WorkflowError(
                f"set-resources, {name}:gpu={asked}: this run has gpu={limit}. Add --resources gpu={asked}, or change "
                "`resources` in the profile. Nothing was started."
            )
