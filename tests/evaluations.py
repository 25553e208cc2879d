"""``python train.py test`` in this process, and what it writes."""

import json

import train


def run(*arguments):
    train.main(["test", *map(str, arguments)])


def results_in(folder):
    return json.loads((folder / "results.json").read_text())
