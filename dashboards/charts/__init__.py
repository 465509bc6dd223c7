"""Charts drawn on the server as SVG: one drawing for page, print and PDF, coloured by style sheets."""
