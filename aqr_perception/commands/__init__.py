"""Commands of ``aqr_perception``, one module each. Slow imports happen only when a command runs."""
