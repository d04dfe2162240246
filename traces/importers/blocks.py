"""Reports of one step that span several lines: read line by line, told when the next one begins or the log ends.

NeMo-RL's `=== Step 3/100 ===` with its bullets, AReaL's `Train step 3/100 done.` with a table, and dictionaries that
are printed over many lines behind `Step 3:` (SkyRL). Does not know what a key means.
"""

import re
from collections.abc import Iterator

from traces.importers.literals import dictionary, number
from traces.importers.records import Record, put
from traces.importers.tally import Tally
from traces.importers.text import Piece

MAX_BLOCK_CHARS = 500_000

_PREFIX = re.compile(r"^\([A-Za-z_][\w.:]* [^()]{0,80}\) ?", re.ASCII)
"""`(TaskRunner pid=3165) ` of Ray."""
_NEMO_HEAD = re.compile(r"={10,} Step (\d{1,12})/\d+ ={10,}", re.ASCII)
_NEMO_ITEM = re.compile(r"•\s*([^:]{1,100}):\s*(-?[\d.]{1,30}(?:e[+-]?\d{1,4})?)(s\b| steps\b|%)?", re.ASCII)
_AREAL_HEAD = re.compile(r"Train step (\d{1,12})/\d+ done", re.ASCII)
_STEP_HEAD = re.compile(r"\bStep (\d{1,12}):\s*(?=\{|$)", re.ASCII)

_NEMO_KEYS = {
    "Total step time": "timing/train/total_step_time",
    "Mean Generation Length": "train/mean_gen_tokens_per_sample",
    "Avg Reward": "train/reward",
    "Avg Trajectory Age": "train/avg_trajectory_age",
    "Buffer Size": "train/buffer_size",
    "Loss": "train/loss",
    "Draft Loss": "train/draft_loss",
    "Generation KL Error": "train/gen_kl_error",
    "Total validation time": "timing/validation/total_validation_time",
}
"""What NeMo-RL prints -> the key under which it logs the same number elsewhere."""


class Blocks:
    """What was read of a report that has not ended."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._report: Record | None = None
        self._waiting_for_dictionary: int | None = None
        self._dictionary: list[str] = []
        self._num_chars = 0
        self._where = ""

    def feed(self, piece: Piece) -> Iterator[Record]:
        """Take the next piece; yield the report that it ends, if any."""
        text = piece.text
        if self._dictionary or self._waiting_for_dictionary is not None:
            yield from self._feed_dictionary(_PREFIX.sub("", text), piece.where)
            if self._dictionary:
                return
        if "Step " in text or "Train step " in text:
            head = _NEMO_HEAD.search(text) or _AREAL_HEAD.search(text)
            if head is not None:
                yield from self.finish()
                part = "report" if "=====" in text else "table"
                self._report = Record(int(head.group(1)), {}, piece.where, part=part)
                return
            if (head := _STEP_HEAD.search(text)) is not None:
                yield from self.finish()
                self._waiting_for_dictionary, self._where = int(head.group(1)), piece.where
                if text[head.end() :].startswith("{"):
                    yield from self._feed_dictionary(text[head.end() :], piece.where)
                return
        if self._report is not None:
            self._feed_report(self._report, text)

    def finish(self) -> Iterator[Record]:
        """Yield the report that is still open; call it at the end of a file."""
        report, self._report = self._report, None
        if report is not None and report.numbers:
            yield report
        if self._dictionary:
            yield from self._end_dictionary()
        self._waiting_for_dictionary = None

    def _feed_report(self, report: Record, text: str) -> None:
        if report.part == "report" and "•" in text:
            for name, value, unit in _NEMO_ITEM.findall(text):
                is_time = unit == "s"
                key = _NEMO_KEYS.get(name.strip()) or (f"timing/train/{name.strip()}" if is_time else None)
                if key is None:
                    self.tally.ignore("other bullets of a step's report", "no times")
                elif key not in report.numbers and (found := number(value)) is not None:
                    put(report.numbers, key, found, self.tally)
        elif report.part == "table" and "│" in text:
            cells = [cell.strip() for cell in text[text.index("│") :].strip("│").split("│")]
            for name, value in zip(cells[0::2], cells[1::2], strict=False):
                found = number(value)
                if name and found is not None and name not in report.numbers:
                    put(report.numbers, name, found, self.tally)

    def _feed_dictionary(self, text: str, where: str) -> Iterator[Record]:
        if not self._dictionary and not text.startswith("{"):
            self._waiting_for_dictionary = None
            return
        self._dictionary.append(text)
        self._num_chars += len(text)
        if text.endswith("}"):
            yield from self._end_dictionary()
        elif self._num_chars > MAX_BLOCK_CHARS:
            self.tally.drop(where, f"a dictionary over more than {MAX_BLOCK_CHARS} characters")
            self._forget()

    def _end_dictionary(self) -> Iterator[Record]:
        found = dictionary(" ".join(self._dictionary))
        numbers: dict[str, float] = {}
        values = {**found.numbers, **{key: number(text) for key, text in found.texts.items()}}
        for key, value in values.items():  # SkyRL prints numbers as text
            if value is not None:
                put(numbers, key, value, self.tally)
        step, where = self._waiting_for_dictionary, self._where
        self._forget()
        if step is not None and numbers:
            yield Record(step, numbers, where, part="dictionary")

    def _forget(self) -> None:
        self._dictionary, self._num_chars, self._waiting_for_dictionary = [], 0, None
