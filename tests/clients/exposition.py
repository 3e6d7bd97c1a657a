"""Parses a page from standard input by Prometheus' library for Python, and prints as JSON what it says: the
labels of the samples of the family that is named, and the help of each family."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

page = sys.stdin.buffer.read().decode()
labels, helps = [], {}
for family in text_string_to_metric_families(page):
    helps[family.name] = family.documentation
    if family.name == sys.argv[1]:
        labels += [sample.labels for sample in family.samples]
json.dump({"labels": labels, "helps": helps}, sys.stdout)
