"""Made-up data and stand-ins that several tests share."""
