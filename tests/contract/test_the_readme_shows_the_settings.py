"""The settings file in the README is one that works, names every key and variable, and shows the built-in values."""

from __future__ import annotations

import re
from pathlib import Path

from preflight.config import KEYS, load_settings

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_file_in_the_readme_changes_nothing(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    file = tmp_path / "preflight.toml"
    file.write_text(block, encoding="utf-8")
    shown = load_settings(file=file, env={}, user_home=tmp_path, flags={})
    built_in = load_settings(file=None, env={}, user_home=tmp_path, flags={})
    assert {key.name: getattr(shown, key.field) for key in KEYS} == {
        key.name: getattr(built_in, key.field) for key in KEYS
    }
    # The store's folder has no value to show, and is there as a comment.
    assert {key.name for key in KEYS} - shown.origins.keys() == {"store.path"}
    assert all(key.variable in block for key in KEYS)
