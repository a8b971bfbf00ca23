"""Execution accuracy for text-to-SQL: a safe SQLite executor, an extractor, a comparison and a DeepEval metric.

from custom_metrics.judge import judge                              # plain functions, no DeepEval
from custom_metrics.execution_accuracy import ExecutionAccuracy     # the DeepEval metric
"""
