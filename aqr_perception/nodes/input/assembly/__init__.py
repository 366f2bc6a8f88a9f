"""Parts of the assembler."""
