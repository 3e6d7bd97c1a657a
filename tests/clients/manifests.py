"""What the tests of the manifests ask of other people's programs.

usage: manifests.py json FILE         the documents of a YAML text as a JSON list (- is standard input)
       manifests.py validate VERSIONS the JSON list on standard input against the schemas of those
                                      Kubernetes versions
       manifests.py chart FOLDER      lints and renders a chart with Helm's own code; standard input is
                                      a JSON list of values to render it with, the answer a list of
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
    """Prints the kinds that have no schema; a document that does not fit its schema ends it."""
    import kubernetes_validate

    given = json.load(sys.stdin)
    unknown = set()
    for version in versions.split(","):
        for document in given:
            name = f"{document['kind']} {document['metadata']['name']}"
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                unknown.add(document["kind"])
            except kubernetes_validate.ValidationError as error:
                place = ".".join(map(str, error.path))
                sys.exit(f"{name}, Kubernetes {version}: {place}: {error.message}")
    return sorted(unknown)


def chart(folder):
    import helm_python

    report = helm_python.lint(folder, strict=True)
    findings = [m for m in report["messages"] if m["severity"] > 1]
    if findings or report["errors"]:
        sys.exit(f"lint: {findings} {report['errors']}")
    with helm_python.Chart.load(folder) as loaded:
        return [rendered(helm_python, loaded, values) for values in json.load(sys.stdin)]


def rendered(helm_python, loaded, values):
    try:
        loaded.validate_schema(values)
        files = loaded.render(values, name="gpus", namespace="monitoring")
    except helm_python.HelmError as error:
        return {"error": str(error)}
    notes = "".join(text for path, text in files.items() if path.endswith("NOTES.txt"))
    texts = [text for path, text in files.items() if path.endswith(".yaml")]
    return {"documents": [d for text in texts for d in documents(text)], "notes": notes}


if __name__ == "__main__":
    verb, argument = sys.argv[1:]
    verbs = {"json": lambda path: documents(read(path)), "validate": validate, "chart": chart}
    json.dump(verbs[verb](argument), sys.stdout)
