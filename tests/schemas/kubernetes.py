#!/usr/bin/env python3
"""Writes strict schemas of the exported kinds, without descriptions, from the kubernetes-validate package on PyPI.

    python3 -m venv venv && venv/bin/pip install kubernetes-validate && venv/bin/python tests/schemas/kubernetes.py
"""

import json
import pathlib

import kubernetes_validate

KINDS = {
    "ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "Job": "io.k8s.api.batch.v1.Job",
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "Pod": "io.k8s.api.core.v1.Pod",
    "Secret": "io.k8s.api.core.v1.Secret",
    "Service": "io.k8s.api.core.v1.Service",
    "StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
}

package = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
versions = [path for path in package.iterdir() if path.name.endswith("-local-strict")]
newest = max(versions, key=lambda path: [int(part) for part in path.name[1:].split("-")[0].split(".")])
definitions = json.loads((newest / "_definitions.json").read_text())
definitions = definitions["$defs"]
needed = {}


def take(name):
    if name in needed:
        return
    needed[name] = {}
    needed[name] = pruned(definitions[name])


def pruned(node, is_schema=True):
    if isinstance(node, list):
        return [pruned(item) for item in node]
    if not isinstance(node, dict):
        return node
    if is_schema and "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        take(name)
        return {"$ref": "#/definitions/" + name}
    kept = {}
    for key, value in node.items():
        if is_schema and (key == "description" or key.startswith("x-")):
            continue
        kept[key] = pruned(value, is_schema=not (is_schema and key == "properties"))
    return kept


for name in KINDS.values():
    take(name)
document = {
    "version": newest.name[1:].split("-")[0],
    "kinds": KINDS,
    "definitions": dict(sorted(needed.items())),
}
target = pathlib.Path(__file__).with_name("kubernetes.json")
target.write_text(json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n")
print(target, document["version"], len(needed), "definitions")
