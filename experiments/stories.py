"""The results that the app opens with: every story's configurations and their references.

python -m experiments.stories        some 10 s; writes toybench/views/stories.json
"""

from __future__ import annotations

import argparse

from toybench.records import provenance, record, write_json
from toybench.runtime import configure
from toybench.training import train
from toybench.views.scene import reference_of
from toybench.views.shipped import PATH
from toybench.views.stories import stories


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    configure()
    wanted: dict = {}
    for story in stories().values():
        scene = story.scene
        for run in scene.runs:
            wanted |= {(one, scene.seeds): None for one in (run, reference_of(scene.preset, run))}
    results = [record(train(run, seeds)[0]) for run, seeds in wanted]
    write_json(PATH, {"provenance": provenance(), "results": results})


if __name__ == "__main__":
    main()
