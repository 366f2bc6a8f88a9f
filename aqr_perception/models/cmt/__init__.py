"""CMT with AQR."""
