"""Reports of the twin: one HTML file that holds everything, its pictures as inline SVG (matplotlib). Opens no file itself."""
