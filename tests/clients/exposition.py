"""Parses an exposition from standard input with Prometheus' Python library. Prints as JSON the label sets of the
samples of the family named by the first argument, and the HELP text of each family."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

exposition = sys.stdin.buffer.read().decode()
labels, helps = [], {}
for family in text_string_to_metric_families(exposition):
    helps[family.name] = family.documentation
    if family.name == sys.argv[1]:
        labels += [sample.labels for sample in family.samples]
json.dump({"labels": labels, "helps": helps}, sys.stdout)
