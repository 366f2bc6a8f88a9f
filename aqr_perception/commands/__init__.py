"""The commands of ``aqr_perception``, a module each. What takes seconds to import is imported when a command runs."""
