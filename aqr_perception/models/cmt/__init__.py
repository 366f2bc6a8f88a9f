"""CMT (arXiv:2301.01283) with adaptive query routing (AQR)."""
