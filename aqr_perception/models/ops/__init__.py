"""Operations made fast; their results are those of the plain ones."""
