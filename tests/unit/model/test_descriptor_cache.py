"""Where descriptors are kept."""

from __future__ import annotations

from pathlib import Path

from model.descriptor_cache import cache_file


def test_what_descriptors_follow_from_has_a_file_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    files = {cache_file(folder, "shop", *what) for what in ((1, "x"), (1, "y"), (2, "x"))}
    assert len(files) == 3
    assert cache_file(folder, "shop", 1, "x") in files
    assert folder.is_dir()


def test_any_name_makes_a_file_in_the_folder(tmp_path: Path) -> None:
    for name in ("../up", "a/b", "...", "x" * 256, "tab\there"):
        file = cache_file(tmp_path, name)
        assert file.parent == tmp_path
        file.touch()
