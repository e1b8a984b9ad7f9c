"""What the tables behind an image of the LSST pipelines (afw) say."""

from typing import Any

# nJy of magnitude 0 in the AB system; the archive has nJy per unit of the image.
_NANOJANSKY_AT_ZERO = 10 ** (0.4 * 31.4)


def archive_cards(hdus: Any) -> tuple[dict[str, Any], str | None]:
    """Calibration and filter as header cards, FLUXMAG0 and FILTNAME; and what is to be warned of.

    A table PhotoCalib has the flux calibration, and FilterLabel the name of the band.
    """
    cards: dict[str, Any] = {}
    concern = None
    tables = {_name(hdu): hdu for hdu in hdus if hdu.header.get("XTENSION") == "BINTABLE"}
    mean = _entry(tables.get("PhotoCalib"), "calibrationMean")
    if mean is not None and mean > 0:
        cards["FLUXMAG0"] = _NANOJANSKY_AT_ZERO / float(mean)
        if _entry(tables.get("PhotoCalib"), "field"):
            concern = "the flux calibration varies over the image; its mean is used."
    for column in ("band", "physical"):
        label = str(_entry(tables.get("FilterLabel"), column) or "").strip()
        if label:
            cards.setdefault("FILTNAME", label)
    return cards, concern


def _name(hdu: Any) -> str:
    # EXTNAME comes in capitals from some writers.
    found = hdu.header.get("AR_NAME") or hdu.header.get("EXTNAME") or ""
    known = {"photocalib": "PhotoCalib", "filterlabel": "FilterLabel"}
    return known.get(str(found).strip().lower(), str(found))


def _entry(table: Any, column: str) -> Any:
    """The first row of a column; None if there is no such thing."""
    if table is None or column not in table.columns.names or not len(table.data):
        return None
    return table.data[column][0]
