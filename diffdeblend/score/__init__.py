"""How good a deblender is: measure functions run over simulated blends, and what they are worth."""
