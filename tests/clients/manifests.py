"""Third-party tools for the tests of the manifests.

usage: manifests.py json FILE         prints the documents of a YAML file as a JSON list (- is standard input)
       manifests.py validate VERSIONS validates the JSON list on standard input against the schemas of these
                                      Kubernetes versions
       manifests.py chart FOLDER      lints and renders a chart with Helm's own code; standard input is
                                      a JSON list of values to render it with, the output a list of
                                      {"error"} or {"documents", "notes"}
"""

import json
import sys

import yaml


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document is not None]


def read(path):
    if path == "-":
        return sys.stdin.read()
    with open(path, encoding="utf-8") as file:
        return file.read()


def validate(versions):
    """The kinds without a schema. Exits with an error if a document does not match its schema."""
    import kubernetes_validate

    resources = json.load(sys.stdin)
    unknown = set()
    for version in versions.split(","):
        for document in resources:
            name = f"{document['kind']} {document['metadata']['name']}"
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(document["kind"])
            except kubernetes_validate.ValidationError as error:
                path = ".".join(map(str, error.path))
                sys.exit(f"{name}, Kubernetes {version}: {path}: {error.message}")
    return sorted(unknown)


def chart(folder):
    import helm_python

    report = helm_python.lint(folder, strict=True)
    findings = [m for m in report["messages"] if m["severity"] > 1]
    if findings or report["errors"]:
        sys.exit(f"lint: {findings} {report['errors']}")
    with helm_python.Chart.load(folder) as loaded:
        return [render(helm_python, loaded, values) for values in json.load(sys.stdin)]


def render(helm_python, loaded, values):
    try:
        loaded.validate_schema(values)
        files = loaded.render(values, name="gpus", namespace="monitoring")
    except helm_python.HelmError as error:
        return {"error": str(error)}
    notes = "".join(text for path, text in files.items() if path.endswith("NOTES.txt"))
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return {"documents": [d for text in texts for d in documents(text)], "notes": notes}


if __name__ == "__main__":
    command, argument = sys.argv[1:]
    commands = {"json": lambda path: documents(read(path)), "validate": validate, "chart": chart}
    json.dump(commands[command](argument), sys.stdout)
