"""What docs/resume.md and docs/ranks.md show works."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import pescador

from .docs.test_pages import PAGES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "resume.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
RANKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "ranks.md").read_text(encoding="utf-8"), flags=re.DOTALL
)

SETTING = """
import numpy as np
import pescador


def sample(i, rng):
    while True:
        yield {"X": np.array([i, rng.integers(1000)])}


def make_batches():
    streams = [pescador.Streamer(sample, i, rng=pescador.RNG) for i in range(20)]
    mux = pescador.StochasticMux(streams, 5, 4, random_state=0)
    return pescador.Streamer(pescador.buffer_stream, mux, 2)


def texts(batches):
    return [str(batch["X"].tolist()) for batch in batches]


expected = texts(make_batches()(30))
"""

FRAMEWORKS = {  # what shows that a block works: packages, its first words, and a check
    "torchdata": (
        ("torch", "torchdata"),
        "from torch.utils.data",
        """
items = iter(loader)
found = texts(next(items) for _ in range(7))
state = loader.state_dict()
loader = StatefulDataLoader(Batches(make_batches()), batch_size=None, num_workers=0)
loader.load_state_dict(state)
items = iter(loader)
assert found + texts(next(items) for _ in range(23)) == expected
""",
    ),
    "Lightning": (
        ("torch", "lightning"),
        "class Epoch",
        """
import tempfile, torch, lightning


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(1)), []

    def training_step(self, batch, index):
        self.seen.append(str(batch["X"].tolist()))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(max_steps, *callbacks, **options):
    module = Module()
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, max_steps=max_steps, callbacks=list(callbacks), logger=False,
        enable_checkpointing=bool(callbacks), enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module, Epoch(make_batches(), 30), **options)
    return module.seen


with tempfile.TemporaryDirectory() as folder:
    save = lightning.pytorch.callbacks.ModelCheckpoint(folder, "saved", every_n_train_steps=7, save_top_k=-1)
    assert fit(9, save) == expected[:9]
    assert fit(30, ckpt_path=f"{folder}/saved.ckpt") == expected[7:]
""",
    ),
    "Accelerate": (
        ("torch", "accelerate"),
        "from accelerate",
        """
import tempfile
with tempfile.TemporaryDirectory() as folder:
    items = iter(batches)
    found = texts(next(items) for _ in range(7))
    accelerator.save_state(folder)
    next(items)
    accelerator.load_state(folder)
    assert found + texts(batches(30)) == expected
""",
    ),
}


class Stopped(Exception):
    pass


class Model:
    """Remembers what it was trained on, and stops the program after some batches."""

    stop_after = None

    def __init__(self):
        self.seen = []

    def partial_fit(self, X):
        self.seen.append(X.tolist())
        if len(self.seen) == Model.stop_after:
            raise Stopped


def test_the_first_example_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(SETTING, names)
    names["make_model"] = Model
    for stop_after in (130, 470, None):
        Model.stop_after = stop_after
        try:
            exec(BLOCKS[0], names)
        except Stopped:
            assert len(names["model"].seen) == stop_after
    expected = [batch["X"].tolist() for batch in names["make_batches"]()(1000)]
    assert names["model"].seen == expected


def test_the_examples_run(tmp_path):
    (tmp_path / "lines").write_text("a\nb\nc\n")
    names = {"path": tmp_path / "lines", "song": np.arange(1000), "pescador": pescador}
    exec(SETTING, names)
    streams = []
    for block in BLOCKS[1:]:
        if "class " in block or "accelerate" in block:
            break
        exec(block, names)
        if not streams or names["stream"] is not streams[-1]:
            streams.append(names["stream"])
    _, lines, crops, scaled, _ = streams
    assert list(lines) == ["a\n", "b\n", "c\n"]
    for stream in (lines, crops, scaled):
        items = iter(stream)
        next(items)
        state = items.state_dict()
        expected = next(items)
        stream.load_state_dict(state)
        assert repr(next(iter(stream))) == repr(expected)


@pytest.mark.parametrize(("packages", "begins", "check"), FRAMEWORKS.values(), ids=FRAMEWORKS)
def test_the_examples_for_other_libraries_run(packages, begins, check, tmp_path):
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    (block,) = (block for block in BLOCKS if block.startswith(begins))
    script = tmp_path / "script.py"
    script.write_text(SETTING + block + check)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


def test_every_example_is_run_here():
    assert len(BLOCKS) == 7 + len(FRAMEWORKS)


def test_the_examples_of_ranks_run():
    names = {"training": lambda batches: [str(batch["X"].tolist()) for batch in batches]}
    exec(SETTING, names)
    trained = []
    for rank in range(4):
        names.update(rank=rank, world=4)
        for block in RANKS:
            exec(block, names)
        trained.append(names["trained"])
    assert [trained[p % 4][p // 4] for p in range(30 - 30 % 4)] == names["expected"][:28]


def source(page, link):
    """Return the file that a link leads to, or that what it leads to is made of in the build."""
    path = (page.parent / link).resolve()
    if path.parent == ROOT / "docs" / "gallery":
        return ROOT / "examples" / ("GALLERY_HEADER.rst" if path.stem == "index" else f"{path.stem}.py")
    return path


def test_links_lead_somewhere():
    for page in PAGES:
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        # Drawings are made in the build.
        links = [link for link in links if "_drawings/" not in link]
        assert [link for link in links if not source(page, link).exists()] == []
