"""What the README shows works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import pescador

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

SETTING = """
import sys
import numpy

paths = [sys.argv[1] + f"/{i}.npy" for i in range(120)]
for i, path in enumerate(paths):
    numpy.save(path, numpy.full((4, 3), i))


class Model:
    n_batches = 0

    def partial_fit(self, X):
        assert X.shape == (128, 3)
        self.n_batches += 1
        if self.n_batches == 3:
            print("trained")
            sys.exit()


model = Model()
"""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_first_example_runs(tmp_path):
    example = blocks("python")[0]
    script = tmp_path / "script.py"
    script.write_text(SETTING + example, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "trained", "")


def test_the_patterns_for_several_workers_work():
    patterns = blocks("python")[1]
    source = {"X": np.zeros(3)}
    names = {
        "pescador": pescador,
        "files": [pescador.Streamer([source] * 2000) for _ in range(100)],
        "stream": pescador.Streamer([source] * 300),
    }
    for line in patterns.splitlines():
        if line.startswith("pescador.ParallelStreamer"):
            with eval(line, names) as stream:
                assert len(list(stream(20))) == 20
        else:
            exec(line, names)


def test_the_commands_name_files_that_are_there():
    scripts = re.findall(r"python (\S+\.py)", README)
    assert "examples/train_from_disk.py" in scripts
    assert all((ROOT / script).is_file() for script in scripts)


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = (block.strip() for block in blocks("sh") if "pytest" in block)
    steps = [line.partition("#")[0].strip() for line in (ROOT / ".ci/run").read_text().splitlines()]
    assert any(step.startswith("step ") and step.endswith(f" {command}") for step in steps)
