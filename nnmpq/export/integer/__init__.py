"""Networks as whole numbers: what a microcontroller computes, its reference in numpy, and its saved form."""
