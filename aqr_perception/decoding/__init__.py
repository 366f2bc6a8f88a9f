"""Sensor messages to arrays, for the node and for bags: works with any object that has a message's fields."""
