"""The demo: a simulated drive with failing sensors, played into the real node, and a report of the results."""
