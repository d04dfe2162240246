from pathlib import Path

import pytest

from dashboard import uploads
from dashboard.uploads import Upload, on_disk
from traces.errors import TraceError


@pytest.mark.parametrize(
    ("name", "on_the_disk"),
    [
        ("run.log", "run.log"),
        ("../../etc/passwd", "passwd"),
        ("C:\\logs\\run 1.log.gz", "run-1.log.gz"),
        (".bashrc", "bashrc"),
        ("\x1b[31m\n.json", "31m-.json"),
        ("протокол.log", "log"),
        ("...", "upload"),
        ("a" * 300 + ".log", "a" * 116 + ".log"),
    ],
)
def test_only_harmless_letters_of_a_name_reach_the_disk(name: str, on_the_disk: str) -> None:
    with on_disk([Upload(name, b"x")]) as (path,):
        assert path.name == on_the_disk
        assert path.read_bytes() == b"x"
        assert path.parent.parent.name.startswith("bebop-upload-")


def test_files_of_the_same_name_stay_apart_in_order_and_are_gone_afterwards() -> None:
    with on_disk([Upload("run.log", b"1"), Upload("run.log", b"2")]) as paths:
        assert [path.read_bytes() for path in paths] == [b"1", b"2"]
    assert not any(path.exists() or path.parent.parent.exists() for path in paths)


def test_a_complaint_names_the_file_without_its_folder() -> None:
    with pytest.raises(TraceError) as caught, on_disk([Upload("run.log", b"")]) as (path,):
        raise TraceError(f"{path}: is empty; give the log of a run")
    assert str(caught.value) == "run.log: is empty; give the log of a run"


def test_too_many_files_and_too_many_bytes_are_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(TraceError, match="21 files are above the limit of 20"), on_disk([Upload("a", b"")] * 21):
        pass
    monkeypatch.setattr(uploads, "MAX_BYTES", 10)
    with pytest.raises(TraceError, match=r"a: 12 bytes are above the limit of 10"), on_disk([Upload("a", b"1234")] * 3):
        pass


def test_the_hash_is_of_the_bytes_whatever_the_name() -> None:
    assert Upload("a", b"x").sha256 == Upload("b", b"x").sha256 != Upload("a", b"y").sha256
