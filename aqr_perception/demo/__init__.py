"""Demo: a simulated drive with failing sensors played into the node, and a report."""
