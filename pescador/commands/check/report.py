"""What was found out about a stream, and how it is shown."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["LEVELS", "Finding", "Level", "Report"]

Level = Literal["error", "warning", "note"]

LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "note")
_WIDTH: Final = 100  # characters of a line


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    level : {'error', 'warning', 'note'}
        'error': the stream breaks a law, so training may go wrong. 'warning': it is right only under a
        condition, which is named. 'note': it is right, and worth knowing.
    what : str
        What holds.
    where : str
        At which item of which stream, or in which argument; empty if it is about the whole stream.
    cause : str
        The likely cause, with the evidence for it.
    remedy : str
        What to do.
    """

    level: Level
    what: str
    where: str = ""
    cause: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        texts = {f"{self.level:9}": self.what}
        for name in ("where", "cause", "remedy"):
            texts[f"{'':9}{name + ':':8}"] = getattr(self, name)
        return "\n".join(
            textwrap.fill(
                text,
                _WIDTH,
                initial_indent=head,
                subsequent_indent=" " * len(head),
                break_long_words=False,
                break_on_hyphens=False,
            )
            for head, text in texts.items()
            if text
        )


@dataclass
class Report:
    """What :func:`pescador.check` found.

    Attributes
    ----------
    name : str
        What the stream is called.
    n_items : int
        How many items of each opening were compared.
    findings : list of Finding
        Errors first, then warnings, then notes.
    """

    name: str
    n_items: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.level != "error" for finding in self.findings)

    def __str__(self) -> str:
        counts = [(level, sum(one.level == level for one in self.findings)) for level in LEVELS]
        found = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in counts if n)
        head = f"{self.name}: {self.n_items} items of each opening were compared; {found or 'nothing found'}"
        return "\n\n".join([head, *map(str, self.findings)])
