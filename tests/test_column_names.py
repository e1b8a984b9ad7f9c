"""Columns by wildcards."""

import numpy as np
import pytest
from astropy.table import QTable

from diffdeblend import select_columns
from diffdeblend.column_names import matching_columns

NAMES = ["id", "g_kron_flux", "g_kron_flag", "g_psf_flux", "r_kron_flux", "r_psf_flux"]


def test_patterns_choose_columns_in_their_order():
    assert matching_columns(NAMES, "*kron*") == ["g_kron_flux", "g_kron_flag", "r_kron_flux"]
    assert matching_columns(NAMES, "*PSF*", "id", "r_*") == [
        *("g_psf_flux", "r_psf_flux", "id", "r_kron_flux")
    ]
    assert matching_columns(NAMES, "[gr]_psf_????") == ["g_psf_flux", "r_psf_flux"]
    assert matching_columns(NAMES) == []


def test_a_table_keeps_its_rows_and_units():
    table = QTable({name: np.arange(3.0) for name in NAMES}, units={"r_psf_flux": "nJy"})
    chosen = select_columns(table, "id", "r_psf*")
    assert chosen.colnames == ["id", "r_psf_flux"]
    assert chosen["r_psf_flux"].unit == "nJy"
    assert len(chosen) == 3
    columns = {name: np.arange(3) for name in NAMES}
    assert list(select_columns(columns, "*flag")) == ["g_kron_flag"]


def test_a_pattern_that_fits_nothing_is_told_with_what_is_near():
    with pytest.raises(ValueError, match=r"'\*petrosian\*' fits none of the 6 columns"):
        matching_columns(NAMES, "*petrosian*")
    with pytest.raises(ValueError, match=r"near it are .*g_kron_flux"):
        matching_columns(NAMES, "kron_flux")
