"""What galaxies look like before any data: learned priors, and what they were learnt on."""
