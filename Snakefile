# How much does an instruct model gain on text-to-SQL when it is fine-tuned with LoRA, and how much does it forget?
#
#     snakemake --cores all                                     the demo study in config.yaml
#     snakemake --cores all --configfile studies/<name>.yaml    another study, in place of config.yaml
#
# All results go to results/<study>/:
#     tables/ figures/ report.md     what to read
#     data/                          questions, databases, splits, with manifests of ids and hashes
#     runs/<model>/prompts/          the prompts, shared by the model and its adapters
#     runs/<model>/<variant>/        adapter, raw answers and one record per question of each run
#     logs/ benchmarks/              what each job printed, and how long it took

from snakemake.utils import min_version

min_version("9.27")


# A study given on the command line is complete and replaces this one. Snakemake would merge the two, and a key that
# the study leaves out would silently have the demo's value.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "rules/common.smk"


pathvars:
    results=f"results/{config['study']}",
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


rule all:
    """Everything a reader needs: the tables, the figure and the report."""
    default_target: True
    input:
        "<results>/tables/execution_accuracy.csv",
        "<results>/tables/mmlu.csv",
        "<results>/tables/regression.csv",
        "<results>/figures/tradeoff.svg",
        "<results>/report.md",
