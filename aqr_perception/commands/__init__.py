"""Commands of ``aqr_perception``, one module each; slow imports are made only when a command runs."""
