"""An inspection as text, page, picture, JSON and parameter file."""
