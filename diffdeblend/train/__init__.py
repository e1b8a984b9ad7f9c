"""How a prior is learnt: from galaxies drawn, catalogued, or seen."""
