"""Boxes and arrows: a recipe and its openings, seeds, what runs where, windows and leases."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

BLUE, ORANGE, GREEN, GRAY = "#cfe2f3", "#fce5cd", "#d9ead3", "#eeeeee"


class Drawing:
    """A figure whose unit is a tenth of an inch, with the origin at the lower left."""

    def __init__(self, width, height):
        self.figure = plt.figure(figsize=(width / 10, height / 10))
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        self.axes.axis("off")

    def box(self, x, y, width, height, text, color=BLUE, **options):
        """Draw a box with a text in its middle."""
        style = "round,pad=0,rounding_size=0.6"
        self.axes.add_patch(
            FancyBboxPatch((x, y), width, height, style, facecolor=color, edgecolor="0.4", lw=0.8)
        )
        self.text(x + width / 2, y + height / 2, text, **options)

    def frame(self, x, y, width, height, title):
        """Draw a dashed frame with a title above it."""
        self.axes.add_patch(
            Rectangle((x, y), width, height, fill=False, edgecolor="0.5", lw=0.9, ls=(0, (4, 3)))
        )
        self.text(x + 0.3, y + height + 1.2, title, ha="left", color="0.3", style="italic")

    def text(self, x, y, text, **options):
        """Write a text."""
        self.axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 8.5, **options})

    def arrow(self, start, end, text="", offset=(0, 0), **options):
        """Draw an arrow, with a text beside its middle."""
        options = {
            "arrowstyle": "-|>",
            "mutation_scale": 9,
            "color": "0.35",
            "shrinkA": 0,
            "shrinkB": 0,
            **options,
        }
        self.axes.add_patch(FancyArrowPatch(start, end, **options))
        x, y = (start[0] + end[0]) / 2 + offset[0], (start[1] + end[1]) / 2 + offset[1]
        if text:
            self.text(
                x,
                y,
                text,
                fontsize=8,
                color="0.25",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )

    def save(self, folder, name):
        """Save it for the pages."""
        self.figure.savefig(folder / f"{name}.svg")
        plt.close(self.figure)


def recipe(folder):
    """A Streamer is opened three times."""
    drawing = Drawing(56, 22)
    drawing.box(1, 7, 19, 9, "Streamer\n\nsample_file, path, rng=RNG", BLUE)
    drawing.text(10.5, 3.8, "the recipe: nothing runs", color="0.3")
    for y, title, state in (
        (15.5, "first iter()", "at item 7"),
        (8.5, "second iter()", "at item 2"),
        (1.5, "in a worker", "at item 31"),
    ):
        drawing.box(37, y, 18, 5, f"generator, {state}", GREEN)
        drawing.arrow((20, 11.5), (37, y + 2.5), title)
    drawing.save(folder, "recipe")


def tree(folder):
    """One stream, made of a mux of streams, in batches, in the background."""
    drawing = Drawing(56, 26)
    for i, name in enumerate(("song 1", "song 2", "…", "song 30,000")):
        y = 20 - 6 * i
        drawing.box(1, y, 11, 4, name, GREEN)
        drawing.arrow((12, y + 2), (18.5, 14.8 - 1.2 * i))
    drawing.box(18.5, 10, 10, 6, "mux\n100 active", BLUE)
    drawing.arrow((28.5, 13), (33, 13))
    drawing.box(33, 10, 10, 6, "map\nbatches", ORANGE)
    drawing.arrow((43, 13), (48, 13))
    drawing.text(52, 13, "your\nmodel")
    drawing.save(folder, "tree")


def seeds(folder):
    """Seeds go down the tree."""
    drawing = Drawing(56, 24)
    drawing.box(19, 18, 18, 4.5, "mux, random_state=0", BLUE)
    drawing.box(1, 9, 16, 4.5, "draws: C, A, C, B, …", GRAY)
    drawing.arrow((23, 18), (12, 13.5))
    for i, name in enumerate(("A", "C", "A again")):
        x = 20 + 12 * i
        drawing.box(x, 9, 11, 4.5, f"activation {i}", GRAY)
        drawing.arrow((28, 18), (x + 5.5, 13.5))
        drawing.box(x, 1, 11, 4.5, f"stream {name}\nown RNG", GREEN)
        drawing.arrow((x + 5.5, 9), (x + 5.5, 5.5))
    drawing.save(folder, "seeds")


def one_worker(folder):
    """With one worker, the whole stream runs there."""
    drawing = Drawing(56, 19)
    drawing.frame(1, 1, 14, 14, "your program (consumer)")
    drawing.frame(24, 1, 31, 14, "worker")
    drawing.box(2.5, 5, 11, 6, "ParallelStreamer", GRAY)
    for i in range(3):
        drawing.box(46, 10.5 - 4.2 * i, 7.5, 3.3, f"file {'ABC'[i]}", GREEN)
        drawing.arrow((46, 12.1 - 4.2 * i), (43, 9.6 - 1.6 * i))
    drawing.box(35.5, 5, 7.5, 6, "mux", BLUE)
    drawing.arrow((35.5, 8), (33.5, 8))
    drawing.box(25.5, 5, 8, 6, "batches", ORANGE)
    drawing.arrow((25.5, 8), (13.5, 8), "items")
    drawing.save(folder, "one_worker")


def several_workers(folder):
    """With several workers, the mux runs in the consumer and its streams in workers."""
    drawing = Drawing(56, 24)
    drawing.frame(1, 1, 26, 19.5, "your program (consumer)")
    drawing.box(2.5, 8, 11, 6, "ParallelStreamer", GRAY)
    drawing.box(18, 8, 7.5, 6, "mux", BLUE)
    drawing.arrow((18, 11), (13.5, 11))
    for i, files in enumerate(("AC", "BD")):
        y = 12 - 11 * i
        drawing.frame(37, y, 18, 8.5, f"worker {i}")
        for j, name in enumerate(files):
            drawing.box(45, y + 4.6 - 4.1 * j, 8.5, 3.3, f"file {name}", GREEN)
            drawing.arrow((45, y + 6.2 - 4.1 * j), (25.5, 12.8 - 2.4 * i - 1.2 * j))
    drawing.text(32, 17.5, "items", fontsize=8, color="0.25")
    drawing.save(folder, "several_workers")


def window(folder):
    """How far a worker runs ahead."""
    drawing = Drawing(56, 13)
    for i in range(14):
        x = 1 + 3.85 * i
        color = "white" if i > 9 else ORANGE if i > 7 else GREEN if i > 3 else GRAY
        drawing.box(x, 5, 3.5, 3.5, str(i + 40), color)
    drawing.text(8.5, 3, "with the consumer")
    drawing.text(24, 3, "waiting for it")
    drawing.text(35.5, 3, "being made", ha="center")
    drawing.text(48, 3, "not begun", color="0.4")
    drawing.arrow((16.4, 10.2), (39.3, 10.2), "prefetch: at most so many", (0, 1.3), arrowstyle="<|-|>")
    drawing.save(folder, "window")


def ring(folder):
    """The shared memory of a worker, and who holds what of it."""
    drawing = Drawing(56, 15)
    parts = (
        (9, GRAY, "free"),
        (8, BLUE, "batch 7\nlease: you"),
        (8, BLUE, "batch 8\nlease: you"),
        (8, GREEN, "batch 9\nwaits"),
        (8, ORANGE, "batch 10\nis written"),
        (13, GRAY, "free"),
    )
    x = 1
    for width, color, text in parts:
        drawing.box(x, 3, width - 0.2, 6, text, color, fontsize=7.5)
        x += width
    drawing.text(28, 12, "the ring: one block of shared memory a worker", color="0.3", style="italic")
    drawing.save(folder, "ring")


def thumbnail(folder):
    """A small mux, for scripts of the gallery that have no figure."""
    drawing = Drawing(20, 14)
    for i in range(3):
        y = 10 - 4.5 * i
        drawing.box(1, y, 5, 3, "", GREEN)
        drawing.arrow((6, y + 1.5), (10, 8.2 - 1.2 * i))
    drawing.box(10, 5, 4, 4, "", BLUE)
    drawing.arrow((14, 7), (19, 7))
    drawing.figure.savefig(folder / "thumbnail.png", dpi=200)
    plt.close(drawing.figure)


def main(folder):
    """Draw all figures of boxes and arrows."""
    for draw in (recipe, tree, seeds, one_worker, several_workers, window, ring, thumbnail):
        draw(folder)
