"""How the light of a blend is shared out among its sources."""
