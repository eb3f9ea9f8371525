"""Files that a trained network is handed over in."""
