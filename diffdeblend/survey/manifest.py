"""What a run was made of: `manifest.json`, which lets no other run into the same folder."""

import json
import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffdeblend.deblend.catalog import versions
from diffdeblend.files import whole_file
from diffdeblend.stamps.store import StampStore
from diffdeblend.survey.settings import FitSettings, Programs

FORMAT, VERSION = "diffdeblend survey run", 1
_NAME = "manifest.json"


def make_manifest(
    store: StampStore, settings: FitSettings, programs: Programs, prior: bytes | None
) -> dict[str, Any]:
    """What decides the values of a run, with hashes of its input and its settings."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "store": {
            "path": str(store.path),
            "sha256": store.fingerprint(),
            "header": asdict(store.header),
        },
        "settings": asdict(settings),
        "settings_sha256": settings.hash(prior),
        "programs": programs.as_dict(),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_manifest(out: Path) -> dict[str, Any] | None:
    """The manifest of a run's folder; None where there is none.

    **Raises:** `ValueError` for a file that is none of ours, or of another version.
    """
    path = out / _NAME
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"`out`: {str(path)!r} is damaged: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"`out`: {str(path)!r} is no manifest of a survey run.")
    if found.get("version") != VERSION:
        raise ValueError(
            f"`out`: {str(path)!r} is of version {found.get('version')} of its format; this is "
            f"diffdeblend for version {VERSION}."
        )
    return found


def run_manifest(out: Path) -> dict[str, Any]:
    """The manifest of a run.

    **Raises:** `ValueError` where there is none.
    """
    manifest = read_manifest(out)
    if manifest is None:
        raise ValueError(f"`out`: {str(out)!r} is no folder of a survey run: no manifest.json.")
    return manifest


def keep_manifest(out: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of a new run, or see that it is the one that is there; returns that.

    Warns where other versions of packages go on than have begun.

    **Raises:** `ValueError` if the folder is of another store, or of other settings.
    """
    there = read_manifest(out)
    if there is None:
        try:
            with whole_file(out / _NAME, sync=True, new=True) as temporary:
                temporary.write_text(json.dumps(wanted, indent=1) + "\n")
        except FileExistsError:
            # Another shard was first, perhaps with other settings.
            return keep_manifest(out, wanted)
        return wanted
    if there["store"]["sha256"] != wanted["store"]["sha256"]:
        raise ValueError(
            f"`out`: {str(out)!r} is of another store, {there['store']['path']!r}, or that has "
            "changed; give another folder."
        )
    if there["settings_sha256"] != wanted["settings_sha256"]:
        old, new = there["settings"], wanted["settings"]
        told = [
            f"{name} {old.get(name)!r}, now {new[name]!r}"
            for name in new
            if old.get(name) != new[name]
        ]
        raise ValueError(
            f"`out`: {str(out)!r} was made with other settings "
            f"({'; '.join(told) or 'another file of the prior'}); give another folder."
        )
    changed = [
        f"{package} {there['versions'].get(package)}, now {version}"
        for package, version in wanted["versions"].items()
        if there["versions"].get(package) != version
    ]
    if changed:
        warnings.warn(
            f"the run in {str(out)!r} was begun with {'; '.join(changed)}: numbers may differ from "
            "those of the parts that are there, in the last digits or by more.",
            stacklevel=2,
        )
    return there
