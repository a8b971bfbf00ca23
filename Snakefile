# How much does an instruct model gain on text-to-SQL when it is fine-tuned with LoRA, and how much does it forget?
#
#     snakemake --cores all                                     the demo study in config.yaml
#     snakemake --cores all --configfile studies/<name>.yaml    another study, in place of config.yaml
#
# Two words change what is run: --config protocol=as_reported for what a published report did, --config scale=smoke for a
# run of a minute. All results go to results/<study>/, with -as_reported and -smoke behind the name:
#     report.pdf report.md           the technical report
#     tables.html answers.html       every table, and every question with every answer, to look at
#     tables/ figures/               the same tables and figures as files
#     recommended/                   the adapter to use, ready to load, if the study asks for a recommendation
#     data/<task>/                   raw data, and the rows to train on, to show and to ask, with ids and hashes
#     prompts/<model>/               the prompts, shared by the model and its adapters
#     index.csv                      every run of the study, and its folder below runs/
#     runs/<model>/<run>/        adapter, raw answers and one record per question of each run
#     logs/ benchmarks/              what each job printed, and how long it took

from snakemake.utils import min_version

min_version("9.27")


# A study given on the command line is complete and replaces this one. Snakemake would merge the two, and a key that
# the study leaves out would silently have the demo's value.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


# Of use with --sdm apptainer alone; envs/apptainer.def says how it is made.
container: "envs/lora-tradeoff.sif"


include: "rules/common.smk"
include: "rules/start.smk"


pathvars:
    results=f"results/{STUDY}",
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


# What was found, with which Snakemake's own report opens.
report: str(Path("results", STUDY, "answer.rst").absolute())


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/harness.smk"


if REPAIRS:

    include: "rules/repair.smk"


if config["recommend"]:

    include: "rules/recommend.smk"


onstart:
    # Not in a dry run. A licence that has not been accepted must not show after hours of downloads.
    before_first_job()


rule all:
    """Everything a reader needs: the report, the tables, the figures and the answers."""
    default_target: True
    input:
        "<results>/README.md",
        "<results>/report.pdf",
        "<results>/report.md",
        "<results>/index.csv",
        [f"<results>/tables/{name}.{suffix}" for name in [*TABLES, "cost"] for suffix in ("csv", "md")],
        "<results>/tables.html",
        "<results>/answers.html",
        [f"<results>/figures/{name}.svg" for name in FIGURES],
        ["<results>/tables/published.csv"] if PUBLISHED else [],
        ["<results>/tables/deepeval_tests.xml"] if SQL_TASKS else [],
        ["<results>/recommended"] if config["recommend"] else [],
        [f"<results>/tables/harness.{suffix}" for suffix in ("csv", "md")] if HARNESS else [],
