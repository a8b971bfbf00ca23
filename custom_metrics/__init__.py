"""Execution accuracy for text-to-SQL: a sandbox, an SQL extractor, comparisons, statistics, a DeepEval metric.

python -m custom_metrics score PREDICTIONS --questions dev.json --databases DIR     # the command line
from custom_metrics.judge import judge                                              # plain functions, no DeepEval
from custom_metrics.execution_accuracy import ExecutionAccuracy                     # the DeepEval metric
"""
